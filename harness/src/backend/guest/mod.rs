//! Anyone's implementation as a candidate: a child process that answers requests (docs/guest-protocol.md).
//!
//! `guest:FILE.py [ARGUMENT…]` runs a Python file, `guest:LIBRARY.so` a shared object behind the C interface,
//! `guest:NAME` a bundled guest, and `guest:PROGRAM [ARGUMENT…]` anything else. Whatever a guest does, it is an answer, a
//! skip or a [`BackendError`]; after a crash, a hang or nonsense it is killed and started again for the next case.

mod command;
mod declaration;
mod exchange;
mod limits;
mod place;
mod process;

use nsa_corpus::{Arithmetic, Field, Inputs, Outputs};
use serde_json::Value;

use self::command::Program;
use self::declaration::Declaration;
use self::exchange::request_file;
pub use self::limits::Limits;
use self::place::{Place, Places};
use super::{Backend, BackendError, Determinism, Unavailable, Unsupported};

/// A guest: its program, its declaration and the places that it runs in.
pub struct GuestBackend {
    name: String,
    program: Program,
    limits: Limits,
    declaration: Declaration,
    places: Places,
}

impl GuestBackend {
    /// Starts the guest that `name` (with its `guest:`) describes and reads its declaration. Further processes start when
    /// they are first needed.
    ///
    /// # Errors
    /// It does not start, does not declare itself in time, or its declaration cannot be read.
    pub fn start(name: &str, limits: Limits) -> Result<Self, Unavailable> {
        let program = Program::parse(name.strip_prefix("guest:").unwrap_or(name))?;
        let places: std::io::Result<Vec<Place>> = (0..limits.processes.max(1)).map(|_| Place::new()).collect();
        let mut places = places.map_err(|error| Unavailable(format!("no temporary folder: {error}")))?;
        // The last is taken first.
        let first = places.last_mut().expect("one at least");
        let declaration = first.start(&program, &limits).map_err(Unavailable)?;
        Ok(GuestBackend { name: name.to_owned(), program, limits, declaration, places: Places::new(places) })
    }

    /// The name that the guest gives itself.
    pub fn declared_name(&self) -> &str {
        &self.declaration.name
    }
}

impl Backend for GuestBackend {
    fn name(&self) -> &str {
        &self.name
    }

    fn arithmetic(&self, inputs: &Inputs) -> Arithmetic {
        self.declaration.arithmetic(inputs.element())
    }

    fn determinism(&self, field: Field) -> Determinism {
        self.declaration.determinism(field)
    }

    fn computes(&self, field: Field) -> bool {
        self.declaration.computes(field)
    }

    fn reads_only_what_it_attends_to(&self, _inputs: &Inputs) -> bool {
        self.declaration.reads_only_what_it_attends_to
    }

    fn environment(&self) -> Value {
        self.declaration.environment.clone()
    }

    fn supports(&self, inputs: &Inputs) -> Result<(), Unsupported> {
        self.declaration.refuses(inputs).map_or(Ok(()), |reason| Err(Unsupported(reason)))
    }

    fn run(&self, inputs: &Inputs) -> Result<Outputs, BackendError> {
        let asked = |field: &Field| field.asked_by(inputs) && self.computes(*field);
        let fields: Vec<Field> = Field::ALL.into_iter().filter(asked).collect();
        // Written before a place is taken: another case may be computed meanwhile.
        let bytes = request_file(inputs);
        self.places.with(|place| place.ask(&self.program, &self.limits, &bytes, inputs, &fields))
    }
}

//! Launches with the addresses of one problem's tensors: ready to be put on a stream, again and again.

use std::marker::PhantomData;

use super::checks::POISON;
use super::memory::Safety;
use super::open::Device;
use super::operands::Operands;
use crate::driver::{Address, Call, Parameter, Stream};
use crate::error::{Error, Kind};
use crate::plan::{Dim3, Launch, Plan, Tensor, Value};

/// One pass over tensors where they lie, compiled, loaded and checked.
#[derive(Debug)]
pub struct Bound<'a> {
    ready: Vec<(Call, Dim3)>,
    stream: Stream,
    /// The tensors are somebody's for as long as this may be launched.
    tensors: PhantomData<&'a ()>,
}

impl<'a> Bound<'a> {
    /// Compiles and loads what `launches`, of `plan`, name. In the checked mode each is preceded by one that fills shared memory.
    pub(super) fn new(
        device: &Device,
        plan: &Plan,
        launches: &[Launch],
        operands: Operands<'a>,
        safety: Safety,
    ) -> Result<Self, Error> {
        let poison = safety.poison;
        let mut ready = Vec::new();
        for launch in launches {
            let function = device.function(&launch.program)?;
            function.prefer_shared(poison)?;
            if launch.extent.dynamic_shared > 0 {
                function.allow_dynamic_shared(launch.extent.dynamic_shared)?;
            }
            let parameters = launch.arguments.iter().map(|argument| match &argument.value {
                Value::Tensor { tensor, .. } => Ok(Parameter::Address(address(plan, operands, *tensor)?)),
                Value::Absent => Ok(Parameter::Address(Address::NULL)),
                Value::Dims(dims) => Ok(Parameter::Dims(dims.clone())),
            });
            let call = function.call(parameters.collect::<Result<_, Error>>()?)?;
            if poison {
                ready.push(device.poison_call(POISON)?);
            }
            ready.push((call, launch.extent));
        }
        Ok(Bound { ready, stream: operands.stream(), tensors: PhantomData })
    }

    /// Puts the pass on the tensors' stream. Waits for nothing: it may not have begun when this returns.
    ///
    /// # Errors
    /// The driver's; of an earlier kernel's fault, too, if it has shown meanwhile.
    pub fn launch(&self) -> Result<(), Error> {
        self.ready.iter().try_for_each(|(call, extent)| call.launch(extent, self.stream))
    }
}

/// Where `tensor` lies, if it was given and is aligned as the plan says.
fn address(plan: &Plan, operands: Operands<'_>, tensor: Tensor) -> Result<Address, Error> {
    let missing = || Kind::Invalid(format!("{tensor} is needed and was not given"));
    let address = operands.address(tensor).ok_or_else(missing)?;
    let planned = plan.buffer(tensor).expect("a launch names tensors of its plan");
    if address.is_aligned(planned.align) {
        return Ok(address);
    }
    let (number, align) = (address.number(), planned.align);
    Err(Kind::Invalid(format!("{tensor} lies at {number:#x}, the kernels need a multiple of {align} bytes")).into())
}

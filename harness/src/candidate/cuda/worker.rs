//! The child process: `nsa-diff cuda-worker`. It owns one CUDA context, computes what it is sent, twice, and answers.

use std::io::{BufReader, BufWriter, stdin, stdout};

use nsa_corpus::{Dtype, GoldenCase, Inputs, Outputs, TensorFile, TensorFileBuilder};
use nsa_gpu::plan::{Axis, Operand, Workspace};
use nsa_gpu::{Device, Kind, Layout, Options, Rung, Variant};
use serde::{Deserialize, Serialize};

use crate::candidate::process::{end_with, frame};
use crate::candidate::{CandidateError, Cause};

/// What the process is started with.
pub struct Args {
    /// Number of the GPU.
    pub device: usize,
    /// Rung of every pass; `None`: the fastest.
    pub rung: Option<String>,
    /// The mutant of a kernel that is computed with.
    pub mutant: Option<String>,
    /// Whether each tensor and workspace is set far apart in turn.
    pub far_strides: bool,
}

/// An error as it travels.
#[derive(Serialize, Deserialize)]
pub(super) struct Trouble {
    class: TroubleClass,
    #[serde(default)]
    cause: Cause,
    message: String,
}

/// What kind of error it is.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TroubleClass {
    Compile,
    OutOfBounds,
    Environment,
    Nondeterministic,
    Crash,
}

impl Trouble {
    fn of(error: &nsa_gpu::Error) -> Self {
        let (class, cause) = match error.kind() {
            Kind::Compile { kernel, .. } => (TroubleClass::Compile, Cause::named(kernel)),
            Kind::OutOfBounds { buffer, .. } => (TroubleClass::OutOfBounds, Cause::named(buffer)),
            Kind::OutOfMemory { .. } | Kind::Unavailable(_) => (TroubleClass::Environment, Cause::Unnamed),
            Kind::InputChanged { buffer, .. } => (TroubleClass::Crash, Cause::named(buffer)),
            Kind::Call { call, .. } => (TroubleClass::Crash, Cause::named(call)),
            _ => (TroubleClass::Crash, Cause::Unnamed),
        };
        Trouble { class, cause, message: error.to_string() }
    }

    pub(super) fn into_error(self) -> CandidateError {
        let Trouble { class, cause, message } = self;
        match class {
            TroubleClass::Compile => CandidateError::Compile(cause, message),
            TroubleClass::OutOfBounds => CandidateError::OutOfBounds(cause, message),
            TroubleClass::Environment => CandidateError::Environment(message),
            TroubleClass::Nondeterministic => CandidateError::Nondeterministic(message),
            TroubleClass::Crash => CandidateError::Crash(cause, message),
        }
    }
}

/// Serves requests until standard input ends, or, in the middle of one, until the harness does. The first byte of an answer is 0 before outputs and 1 before trouble.
pub fn main(args: &Args) -> Result<(), String> {
    end_with(rustix::process::getppid());
    let device = open(args.device, args.mutant.as_deref())?;
    let rung = args.rung.as_deref().map(str::parse::<Rung>).transpose().map_err(|error| error.to_string())?;
    let (mut input, mut output) = (BufReader::new(stdin().lock()), BufWriter::new(stdout().lock()));
    while let Some(request) = frame::read(&mut input).map_err(|error| error.to_string())? {
        let answer = match compute(&device, rung, args.far_strides, request) {
            Ok(outputs) => encode(&outputs),
            Err(trouble) => {
                let mut bytes = vec![1];
                bytes.extend(serde_json::to_vec(&trouble).expect("plain data"));
                bytes
            }
        };
        frame::write(&mut output, &answer).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// The device, with the fault called `mutant` planted in its kernels.
pub fn open(device: usize, mutant: Option<&str>) -> Result<Device, String> {
    let device = Device::open(device).map_err(|error| error.to_string())?;
    let Some(name) = mutant else { return Ok(device) };
    let mutants = nsa_gpu::mutants().map_err(|error| error.to_string())?;
    let mutant = mutants.into_iter().find(|mutant| mutant.name == *name);
    Ok(device.with_mutant(Some(mutant.ok_or_else(|| format!("no mutant is called `{name}`"))?)))
}

fn compute(device: &Device, rung: Option<Rung>, far_strides: bool, request: Vec<u8>) -> Result<Outputs, Trouble> {
    let inputs = decode_inputs(request).map_err(|message| Trouble {
        class: TroubleClass::Crash,
        cause: Cause::Unnamed,
        message,
    })?;
    let dense = Options { variant: rung.map(Variant::uniform), layout: layout(&inputs), ..Options::default() };
    let run = |options: &Options| nsa_gpu::run(device, &inputs, options).map_err(|error| Trouble::of(&error));
    let outputs = run(&dense)?;
    expect_same(&outputs, &run(&dense)?, "between two runs")?;
    for (what, options) in if far_strides { all_far_strides(&inputs, dense) } else { Vec::new() } {
        let again =
            run(&options).map_err(|trouble| Trouble { message: format!("{what}: {}", trouble.message), ..trouble })?;
        expect_same(&outputs, &again, &what)?;
    }
    Ok(outputs)
}

/// Each tensor in turn set apart along each of its axes, then each part of the workspace.
fn all_far_strides(inputs: &Inputs, dense: Options) -> Vec<(String, Options)> {
    let axes = Operand::ALL.into_iter().flat_map(|operand| Axis::ALL.map(|axis| (operand, axis)));
    let axes = axes.filter(|(operand, axis)| operand.count(*axis, inputs.shape()) > 1);
    let operands = axes.map(|(operand, axis)| {
        let what = format!("once {operand:?} lies 2^32 elements apart along {axis:?}");
        (what, Options { layout: Layout::Far { operand, axis }, ..dense })
    });
    let workspaces = Workspace::ALL.into_iter().filter(|_| inputs.cotangents().any()).map(|workspace| {
        let what = format!("once the rows of {workspace:?} lie 2^32 elements apart");
        (what, Options { far: Some(workspace), ..dense })
    });
    operands.chain(workspaces).collect()
}

/// The kernels promise the same bits, whenever they run and wherever tensors lie.
fn expect_same(first: &Outputs, second: &Outputs, when: &str) -> Result<(), Trouble> {
    for ((field, first), (_, second)) in first.iter().zip(second.iter()) {
        let differing = first.iter().zip(second).filter(|(first, second)| first.to_bits() != second.to_bits()).count();
        if differing > 0 {
            let message = format!("{differing} of {} elements of {field} differ {when}", first.len());
            return Err(Trouble { class: TroubleClass::Nondeterministic, cause: Cause::Unnamed, message });
        }
    }
    Ok(())
}

/// Both dense layouts take their turn, by the length of the sequence.
pub fn layout(inputs: &Inputs) -> Layout {
    if inputs.shape().seq_len().is_multiple_of(2) { Layout::TokenMajor } else { Layout::HeadMajor }
}

fn decode_inputs(request: Vec<u8>) -> Result<Inputs, String> {
    let case = TensorFile::parse(request).and_then(|file| GoldenCase::from_file("request", &file));
    case.map(|case| case.inputs).map_err(|error| error.to_string())
}

/// A request: the inputs in the golden format, without answers.
pub(super) fn encode_inputs(inputs: &Inputs) -> Vec<u8> {
    GoldenCase::new("request", inputs.clone(), Outputs::new()).to_bytes()
}

fn encode(outputs: &Outputs) -> Vec<u8> {
    let mut file = TensorFileBuilder::new();
    for (field, tensor) in outputs.iter() {
        file.float(field.name(), Dtype::F64, tensor);
    }
    let mut bytes = vec![0];
    bytes.extend(file.to_bytes());
    bytes
}

/// What [`encode`] wrote, or the trouble instead.
pub(super) fn decode(answer: Vec<u8>) -> Result<Outputs, CandidateError> {
    let broken = |message: String| CandidateError::Broken(message);
    match answer.split_first() {
        Some((0, bytes)) => {
            let file = TensorFile::parse(bytes.to_vec()).map_err(|error| broken(error.to_string()))?;
            let mut outputs = Outputs::new();
            for field in nsa_corpus::Field::ALL.into_iter().filter(|field| file.has(field.name())) {
                outputs.set(field, file.get_f64(field.name()).map_err(|error| broken(error.to_string()))?);
            }
            Ok(outputs)
        }
        Some((1, bytes)) => {
            let trouble: Trouble = serde_json::from_slice(bytes).map_err(|error| broken(error.to_string()))?;
            Err(trouble.into_error())
        }
        _ => Err(broken("an answer of an unknown kind".to_owned())),
    }
}

//! What a command prints and writes. Nothing here ends the program: a write that fails is remembered, and how the command ends
//! follows from its verdict and from what was remembered.
//!
//! - Standard output that cannot be written (a full disk) is said on standard error and changes no verdict; a reader that
//!   closed the pipe (`| head`) is not even said.
//! - A report that was asked for (`--json`, `--markdown`) and could not be written ends the command with code 2. Whether it
//!   can be written is looked at before the work begins, too.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use nsa_corpus::{check_file, foreign, write_atomically};
use nsa_harness::document::{Document, Envelope};

use super::signals;
use super::{Outcome, Refusal};

/// Standard output and standard error, and what could not be written.
#[derive(Default)]
pub(super) struct Console {
    stdout: RefCell<Option<io::Error>>,
    unwritten: RefCell<Vec<String>>,
}

impl Console {
    /// Prints readable text to standard output.
    pub(super) fn print(&self, text: &str) {
        self.write(&foreign::page(text));
    }

    /// Writes to standard output, unless that has failed before.
    fn write(&self, text: &str) {
        if self.stdout.borrow().is_none() {
            let mut stdout = io::stdout().lock();
            self.printed(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()));
        }
    }

    /// Remembers the first write to standard output that failed.
    pub(super) fn printed(&self, result: io::Result<()>) {
        if let Err(error) = result {
            self.stdout.borrow_mut().get_or_insert(error);
        }
    }

    /// Says on one line of standard error what is wrong. Nowhere is left to say that this fails.
    fn complain(&self, message: &str) {
        let _ = writeln!(io::stderr(), "nsa-diff: error: {}", foreign::line(message));
    }

    /// Says what went wrong, and gives the exit code.
    pub(super) fn exit_code(&self, outcome: Result<Outcome, Refusal>) -> u8 {
        let stdout = self.stdout.borrow();
        let full = stdout.as_ref().filter(|error| error.kind() != ErrorKind::BrokenPipe);
        let code = match outcome {
            Ok(Outcome::Shown) if full.is_some() => 2,
            Ok(Outcome::Passed | Outcome::Shown) => 0,
            Ok(Outcome::Failed) => 1,
            Ok(Outcome::Interrupted) => signals::exit_code(),
            Err(refusal) => {
                refusal.lines().iter().for_each(|line| self.complain(line));
                2
            }
        };
        if let Some(error) = full {
            self.complain(&format!("standard output cannot be written: {error}"));
        }
        let unwritten = self.unwritten.borrow();
        unwritten.iter().for_each(|message| self.complain(message));
        if unwritten.is_empty() { code } else { 2 }
    }
}

/// Where machine-readable output goes.
#[derive(clap::Args)]
pub(super) struct Json {
    /// Write the result as JSON to FILE too; "-" writes JSON alone to standard output (docs/reports.md)
    #[arg(id = "json", long = "json", value_name = "FILE")]
    file: Option<PathBuf>,
}

/// What a command prints and writes: readable text, the JSON document, other files.
pub(super) struct Output<'a> {
    console: &'a Console,
    json: Option<&'a Path>,
}

impl<'a> Output<'a> {
    /// Output to `console`, to where `json` says, and to `files`.
    ///
    /// # Errors
    /// One of the files cannot be written, or two are the same: better known before an hour of work than after it.
    pub(super) fn open(console: &'a Console, json: &'a Json, files: &[&Path]) -> Result<Self, Refusal> {
        let output = Output { console, json: json.file.as_deref() };
        let json = output.json.filter(|_| !output.json_alone());
        let mut seen = Vec::new();
        for file in json.into_iter().chain(files.iter().copied()) {
            check_file(file)?;
            let position = (file.parent().and_then(|folder| folder.canonicalize().ok()), file.file_name());
            if seen.contains(&position) {
                return Err(Refusal::new(format!("{}: is named twice as a file to write", foreign::path(file))));
            }
            seen.push(position);
        }
        Ok(output)
    }

    /// Whether standard output belongs to JSON.
    fn json_alone(&self) -> bool {
        self.json == Some(Path::new("-"))
    }

    /// Prints readable text, unless standard output belongs to JSON.
    pub(super) fn text(&self, text: &str) {
        if !self.json_alone() {
            self.console.print(text);
        }
    }

    /// Writes `document` in its envelope, where JSON was asked for.
    pub(super) fn document<D: Document>(&self, document: &D) {
        let Some(file) = self.json else { return };
        let document = serde_json::to_string_pretty(&Envelope::of(document)).expect("values serialise");
        let mut text = foreign::json(&document);
        text.push('\n');
        if !self.json_alone() {
            return self.file(file, &text);
        }
        self.console.write(&text);
        if let Some(error) = self.console.stdout.borrow().as_ref().filter(|e| e.kind() != ErrorKind::BrokenPipe) {
            self.console.unwritten.borrow_mut().push(format!("--json -: cannot be written: {error}"));
        }
    }

    /// Writes a file that was asked for.
    pub(super) fn file(&self, path: &Path, text: &str) {
        if let Err(error) = write_atomically(path, text.as_bytes()) {
            self.console.unwritten.borrow_mut().push(error.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_that_is_lost_after_all_is_code_2_whatever_the_verdict() {
        let folder = tempfile::tempdir().unwrap();
        let [here, gone] = ["here.json", "gone/report.json"].map(|name| folder.path().join(name));
        std::fs::create_dir(folder.path().join("gone")).unwrap();
        for (file, lost) in [(here, false), (gone, true)] {
            let (console, json) = (Console::default(), Json { file: Some(file.clone()) });
            let output = Output::open(&console, &json, &[]).unwrap();
            if lost {
                std::fs::remove_dir(file.parent().unwrap()).unwrap();
            }
            output.document(&nsa_harness::document::Show { entries: Vec::new() });
            for (outcome, code) in [(Outcome::Passed, 0), (Outcome::Failed, 1), (Outcome::Interrupted, 130)] {
                assert_eq!(console.exit_code(Ok(outcome)), if lost { 2 } else { code }, "{outcome:?}");
            }
            assert_eq!(file.exists(), !lost);
        }
    }

    #[test]
    fn standard_output_that_is_lost_changes_no_verdict() {
        for (kind, shown) in [(ErrorKind::StorageFull, 2), (ErrorKind::BrokenPipe, 0)] {
            let console = Console::default();
            console.printed(Err(kind.into()));
            let outcomes = [Outcome::Passed, Outcome::Failed, Outcome::Interrupted, Outcome::Shown];
            assert_eq!(outcomes.map(|outcome| console.exit_code(Ok(outcome))), [0, 1, 130, shown]);
        }
    }
}

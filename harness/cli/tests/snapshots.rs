//! What a user reads, whole: the help, and the text of the commands that judge. A change shows in a snapshot below `snapshots/`,
//! and is looked at with `cargo insta review` (docs/review.md). Seconds, rates and folders are left out.

use std::path::Path;
use std::process::Command;

/// A candidate that is wrong everywhere.
const WRONG: &str = "rowwise+diagonal_own_key_missing";

/// Headers of tables whose last column is seconds.
const SECONDS: [&str; 2] = [" s", " seconds"];

/// What `nsa-diff` writes to both its outputs, and how it ends: on Unix `exit status: 0`, or the signal.
fn said(line: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nsa-diff"));
    command.args(line.split(' ')).env_remove("COLUMNS").env("RAYON_NUM_THREADS", "2");
    let output = command.output().unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    let printed = SECONDS.iter().fold(stdout, |stdout, header| without_last_column(&stdout, header));
    let errors = if stderr.is_empty() { String::new() } else { format!("[stderr]\n{stderr}") };
    format!("{printed}{errors}[end] {}", output.status)
}

/// Holds what the command says to the snapshot `name`; `folder` is where it writes.
fn assert_said(name: &str, line: &str, folder: &Path) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_description(format!("nsa-diff {line}").replace(folder.to_str().unwrap(), "[folder]"));
    let folder = folder.to_str().unwrap().replace('.', "[.]");
    settings.add_filter(&folder, "[folder]");
    settings.add_filter(r"in [0-9.]+ s \([0-9.]+ a second\)", "in [seconds] s ([rate] a second)");
    settings.bind(|| insta::assert_snapshot!(name, said(line)));
}

/// The same, of a command that writes nothing.
fn assert_shown(name: &str, line: &str) {
    assert_said(name, line, Path::new("no folder"));
}

/// Replaces the last column of a table whose header ends in `header`: seconds.
fn without_last_column(text: &str, header: &str) -> String {
    let mut inside = false;
    let line = |line: &str| {
        inside = line.ends_with(header) || inside && !line.is_empty();
        let cut = line.trim_end().rfind(' ').filter(|_| inside);
        cut.map_or_else(|| line.to_owned(), |cut| format!("{} [seconds]", line[..cut].trim_end()))
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_help_of_every_command_is_what_was_reviewed() {
    let help = said("--help");
    assert_shown("help", "--help");
    let listed = help.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
    let names = listed.take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("   "));
    let names: Vec<&str> = names.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() >= 16, "{names:?}");
    for name in names.into_iter().filter(|name| *name != "help") {
        assert_shown(&format!("help_{name}"), &format!("{name} --help"));
    }
}

#[test]
fn what_run_and_show_say_is_what_was_reviewed() {
    assert_shown("show", "show edges/seq_1");
    assert_shown("run_passes", "run edges/seq_1 edges/seq_block_plus_1 --element f32");
    assert_shown("run_lists_vacuous_checks", "run edges/seq_1 --element f32 --vacuous");
    assert_shown("run_fails", &format!("run edges/seq_1 --element f32 --candidate {WRONG}"));
    assert_shown("run_finds_no_entry", "run edges/seq_one");
}

#[test]
fn what_a_finding_says_from_fuzz_to_confirm_is_what_was_reviewed() {
    let folder = tempfile::tempdir().unwrap();
    let bugs = folder.path().join("bugs");
    let fuzz = format!("fuzz --seed 5 --cases 6 --element f32 --candidate {WRONG} --bugs {}", bugs.display());
    assert_said("fuzz_finds", &fuzz, folder.path());
    let mut stored: Vec<_> = std::fs::read_dir(&bugs).unwrap().map(|entry| entry.unwrap().path()).collect();
    stored.sort();
    assert!(!stored.is_empty());
    for (at, file) in stored.iter().enumerate() {
        assert_said(&format!("confirm_{at}"), &format!("confirm {}", file.display()), folder.path());
        assert_said(&format!("replay_{at}"), &format!("replay {}", file.display()), folder.path());
    }
    let passing = format!("fuzz --seed 5 --cases 6 --element f32 --bugs {}", bugs.display());
    assert_said("fuzz_finds_nothing", &passing, folder.path());
}

#[test]
fn what_matrix_says_is_what_was_reviewed() {
    assert_shown("matrix", &format!("matrix edges/seq_1 --element f32 --candidates tiled,oracle,{WRONG}"));
}

#[test]
fn what_detect_says_is_what_was_reviewed() {
    assert_shown("detect", "detect --only diagonal_own_key --element f32 upstream/small");
    let explained = "detect --only diagonal_own_key --element f32 --rule all --explain upstream/small";
    assert_shown("detect_by_all_rules", explained);
}

#[test]
fn only_the_last_column_of_the_named_table_is_left_out() {
    let text = "a  seconds\nx  0.5\n\nb  other\ny  0.5\n";
    assert_eq!(without_last_column(text, "seconds"), "a [seconds]\nx [seconds]\n\nb  other\ny  0.5\n");
}

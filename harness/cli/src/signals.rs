//! Signals that ask for an end: Ctrl-C, SIGTERM, SIGHUP. The first asks for an early end where a command can report what it
//! has; a second one, or the first where no command can, ends the process at once. Either way nothing is left behind, and
//! the exit code says which signal it was: 128 and its number, as a shell does (130, 143, 129).

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use nsa_harness::candidate::process::end_everything;

/// The command that runs looks at [`interrupted`].
static LOOKED_AT: AtomicBool = AtomicBool::new(false);
/// The first signal that came; 0: none.
static FIRST: AtomicI32 = AtomicI32::new(0);

/// From here on signals are answered. SIGHUP stays ignored where it was ignored before (`nohup`).
pub(super) fn listen() {
    let listened = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| *signal != SIGHUP || !is_ignored(*signal));
    // Without a handler a signal simply ends the process: nothing to report.
    let Ok(mut signals) = Signals::new(listened) else { return };
    thread::spawn(move || {
        for signal in signals.forever() {
            let is_first = FIRST.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst).is_ok();
            if !(is_first && LOOKED_AT.load(Ordering::SeqCst)) {
                end_everything();
                std::process::exit(128 + signal);
            }
        }
    });
}

/// From here on the first signal asks for an early end instead of ending the process.
pub(super) fn catch_interrupt() {
    LOOKED_AT.store(true, Ordering::SeqCst);
}

/// Whether a signal has asked for an end.
pub(super) fn interrupted() -> bool {
    FIRST.load(Ordering::SeqCst) != 0
}

/// What an interrupted command exits with.
pub(super) fn exit_code() -> u8 {
    match FIRST.load(Ordering::SeqCst) {
        0 => 130,
        signal => u8::try_from(128 + signal).unwrap_or(130),
    }
}

/// As the kernel lists it; where it lists nothing, no.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

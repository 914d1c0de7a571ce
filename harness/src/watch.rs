//! How whoever started a long piece of work follows it, and ends it early.

/// Asked before each step whether to go on, and told of each step that is done. Steps may run on several threads.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    stop: &'a (dyn Fn() -> bool + Sync),
    done: &'a (dyn Fn() + Sync),
}

impl<'a> Watch<'a> {
    /// `stop` says whether no further step is to begin, `done` hears of each step that has ended.
    pub fn new(stop: &'a (dyn Fn() -> bool + Sync), done: &'a (dyn Fn() + Sync)) -> Self {
        Watch { stop, done }
    }

    /// Nobody follows the work and nobody ends it.
    pub fn nobody() -> Self {
        Watch { stop: &|| false, done: &|| () }
    }

    /// Whether no further step is to begin.
    pub fn stopped(&self) -> bool {
        (self.stop)()
    }

    /// Says that a step has ended.
    pub fn done(&self) {
        (self.done)();
    }
}

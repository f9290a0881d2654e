//! Listens to what the code under test logs: an error fails the run, the rest goes into the diagram.

use std::cell::RefCell;
use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

thread_local! {
    static HEARD: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
}

/// Listens on this thread until the guard is dropped.
pub fn listen() -> DefaultGuard {
    HEARD.with_borrow_mut(Vec::clear);
    tracing::subscriber::set_default(tracing_subscriber::registry().with(Ear))
}

/// What was logged since the last call.
pub fn heard() -> Vec<(Level, String)> {
    HEARD.with_borrow_mut(std::mem::take)
}

struct Ear;

impl<S: Subscriber> Layer<S> for Ear {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        *metadata.level() <= Level::DEBUG
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        HEARD.with_borrow_mut(|heard| heard.push((*event.metadata().level(), line.0)));
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let space = if self.0.is_empty() { "" } else { " " };
        let _ = match field.name() {
            "message" => write!(self.0, "{space}{value:?}"),
            name => write!(self.0, "{space}{name}={value:?}"),
        };
    }
}

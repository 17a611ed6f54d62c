//! What a training tells: a bar, a log of JSON lines, and events for `TensorBoard`.

use std::cell::RefCell;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use dlis_train::{EventWriter, Progress};
use indicatif::ProgressBar;

use crate::Failure;
use crate::output::bar;

/// Shared between a command and the trainer's callback.
#[derive(Clone)]
pub(crate) struct Journal(Rc<RefCell<Inner>>);

struct Inner {
    bar: ProgressBar,
    output: Option<Output>,
    /// The first failure to write, told at the end: a full disk should not cost a training.
    failure: Option<String>,
}

struct Output {
    path: PathBuf,
    log: File,
    events: EventWriter,
    /// Steps of training runs that ended before, so that a series of several runs goes on.
    before: usize,
    key: String,
    step: usize,
}

impl Journal {
    pub(crate) fn new() -> Self {
        Self(Rc::new(RefCell::new(Inner { bar: bar(1), output: None, failure: None })))
    }

    /// Writes from now on to `{name}.log.jsonl` in `out`, which is appended to, and to a new event file.
    pub(crate) fn open(&self, out: &Path, name: &str) -> Result<(), Failure> {
        let path = out.join(format!("{name}.log.jsonl"));
        let log = File::options().create(true).append(true).open(&path);
        let log = log.map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
        let events = EventWriter::create(&out.join("events").join(name), "dlis")?;
        let output = Output { path, log, events, before: 0, key: String::new(), step: 0 };
        self.0.borrow_mut().output = Some(output);
        Ok(())
    }

    /// Ends the present log; the first failure to write it.
    pub(crate) fn close(&self) -> Result<(), Failure> {
        let mut inner = self.0.borrow_mut();
        inner.output = None;
        inner.bar.finish_and_clear();
        inner.failure.take().map_or(Ok(()), |failure| Err(Failure::new(failure)))
    }

    /// A line above the bar.
    pub(crate) fn say(&self, text: &str) {
        self.0.borrow().bar.suspend(|| eprintln!("{text}"));
    }

    /// The trainer's callback.
    pub(crate) fn watch(&self, progress: &Progress<'_>) {
        let inner = &mut *self.0.borrow_mut();
        let speed = format!("{:.0} images/s", progress.images_per_s);
        inner.bar.set_length(progress.steps as u64);
        inner.bar.set_position(progress.step as u64);
        inner.bar.set_message(format!("{}: loss {:.3}, {speed}", progress.key, progress.loss));
        if let (true, Some(accuracy)) = (inner.bar.is_hidden(), progress.accuracy) {
            // Nobody sees the bar: say what a log should have.
            eprintln!(
                "{}: epoch {:.1} of {:.1}, loss {:.4}, accuracy {:.2} %, {speed}",
                progress.key,
                progress.epoch,
                progress.epochs,
                progress.loss,
                100.0 * accuracy
            );
        }
        if let Some(Err(error)) = inner.output.as_mut().map(|output| output.write(progress)) {
            inner.failure.get_or_insert(error.to_string());
        }
    }
}

impl Output {
    fn write(&mut self, progress: &Progress<'_>) -> Result<(), Failure> {
        if self.key != progress.key {
            self.before += self.step;
            progress.key.clone_into(&mut self.key);
        }
        self.step = progress.step;
        let step = (self.before + progress.step) as u64;
        #[expect(clippy::cast_possible_truncation, reason = "event files hold f32")]
        for (tag, value) in
            [("loss", Some(progress.loss)), ("rate", Some(progress.rate)), ("accuracy", progress.accuracy)]
        {
            if let Some(value) = value {
                self.events.scalar(tag, step, value as f32)?;
            }
        }
        if progress.accuracy.is_none() {
            return Ok(());
        }
        let line = serde_json::json!({
            "run": progress.key,
            "epoch": progress.epoch,
            "step": progress.step,
            "loss": progress.loss,
            "rate": progress.rate,
            "accuracy": progress.accuracy,
            "images_per_s": progress.images_per_s.round(),
            "seconds": progress.seconds,
        });
        writeln!(self.log, "{line}").map_err(|error| Failure::new(format!("{}: {error}", self.path.display())))
    }
}

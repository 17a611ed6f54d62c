//! What a parallel loop costs before it does any work: our executors beside the OpenMP runtime of GCC.
//!
//! The method is that of the EPCC micro-benchmarks (J. M. Bull, "Measuring Synchronisation and
//! Scheduling Overheads in OpenMP", EWOMP 1999): a loop in which each thread has the work of a known
//! serial time takes that time and the overhead, per region. Regions follow one another at once, as the
//! layers of a network do. What is measured takes turns, round by round, so that a busy moment of the
//! machine falls on all alike. With more threads than CPUs the overhead holds the wait for a CPU too.

use std::fmt;
use std::fs;
use std::hint;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::thread;
use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, Table, presets};
use dlis_backend::{Executor, Schedule};
use dlis_cpu_omp::{Pinning, Team};
use dlis_cpu_rayon::RayonExecutor;
use serde_json::json;

const SOURCE: &str = include_str!("fork_join.c");

/// Rounds over all systems, and samples of each in a round.
const ROUNDS: usize = 15;
const SAMPLES: usize = 10;
/// Dependent steps of one iteration: about 0.1 us, the default delay of EPCC's `syncbench`.
const DELAY_STEPS: u32 = 100;
/// Iterations a thread, and regions a sample, so that a sample takes about a millisecond. One iteration
/// is the loop of `syncbench`, where fork and join are everything; 128 that of `schedbench`, where what
/// a schedule does for each chunk counts as well.
const LOOPS: [(usize, usize); 2] = [(1, 1000), (128, 64)];
const SCHEDULES: [Schedule; 2] = [Schedule::Static, Schedule::Dynamic(NonZeroUsize::MIN)];
/// Longer than any system polls: the threads of the last one sleep when the next is measured.
const REST: Duration = Duration::from_millis(30);

/// What runs the loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum System {
    Libgomp { bound: bool },
    Team { bound: bool },
    Rayon,
}

const SYSTEMS: [System; 5] = [
    System::Libgomp { bound: false },
    System::Team { bound: false },
    System::Rayon,
    System::Libgomp { bound: true },
    System::Team { bound: true },
];

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Libgomp { bound: false } => "libgomp",
            Self::Libgomp { bound: true } => "libgomp, bound",
            Self::Team { bound: false } => "team",
            Self::Team { bound: true } => "team, bound",
            Self::Rayon => "rayon",
        })
    }
}

/// Why the overhead could not be measured.
#[derive(Debug)]
pub(crate) enum ForkJoinError {
    /// No C compiler.
    NoCompiler,
    /// The reference did not compile.
    Compile(String),
    /// The reference failed, or printed something else than samples.
    Reference(String),
    /// An executor could not be built.
    Executor(Box<dyn std::error::Error>),
    /// A file could not be written, or a program not started.
    Io(io::Error),
}

impl fmt::Display for ForkJoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCompiler => f.write_str("`gcc` was not found: install the Debian packages gcc and libc6-dev"),
            Self::Compile(stderr) => write!(f, "gcc could not compile the OpenMP reference:\n{stderr}"),
            Self::Reference(what) => write!(f, "the OpenMP reference: {what}"),
            Self::Executor(_) => f.write_str("an executor could not be built"),
            Self::Io(_) => f.write_str("the OpenMP reference could not be prepared or started"),
        }
    }
}

impl std::error::Error for ForkJoinError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Executor(error) => Some(error.as_ref()),
            Self::Io(error) => Some(error),
            Self::NoCompiler | Self::Compile(_) | Self::Reference(_) => None,
        }
    }
}

impl From<io::Error> for ForkJoinError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Measures each system at each number of threads and writes the overheads to the standard output.
///
/// # Errors
///
/// If there is no `gcc`, the reference fails, an executor cannot be built, or the output is closed.
pub(crate) fn run(threads: &[usize], json: bool) -> Result<(), ForkJoinError> {
    let reference = Reference::compile()?;
    let mut report = Report::default();
    for &threads in threads {
        let threads = NonZeroUsize::new(threads)
            .ok_or_else(|| ForkJoinError::Executor("threads: expected at least 1, got 0".into()))?;
        report.measure(threads, &reference)?;
    }
    let mut out = io::stdout().lock();
    if json { writeln!(out, "{:#}", report.to_json()) } else { writeln!(out, "{report}") }?;
    Ok(())
}

/// One sample: the loop that was timed, as an index into [`LOOPS`] times [`SCHEDULES`], and the times
/// of the parallel and the serial version in microseconds a region.
type Sample = (usize, f64, f64);

/// Overheads of one system, loop and number of threads, in microseconds a region.
#[derive(Clone, Copy, Debug)]
struct Row {
    threads: usize,
    schedule: Schedule,
    iterations: usize,
    system: System,
    /// The work of one thread, in microseconds: about the same for all systems.
    work: f64,
    p10: f64,
    median: f64,
    p90: f64,
}

/// All that was measured.
#[derive(Debug, Default)]
struct Report {
    rows: Vec<Row>,
}

impl Report {
    fn measure(&mut self, threads: NonZeroUsize, reference: &Reference) -> Result<(), ForkJoinError> {
        let mut samples: [Vec<Sample>; SYSTEMS.len()] = Default::default();
        for _ in 0..ROUNDS {
            for (system, samples) in SYSTEMS.iter().zip(&mut samples) {
                thread::sleep(REST);
                samples.extend(match *system {
                    System::Libgomp { bound } => reference.samples(threads, bound)?,
                    System::Team { bound } => team_samples(threads, bound)?,
                    System::Rayon => {
                        let executor =
                            RayonExecutor::new(threads).map_err(|error| ForkJoinError::Executor(error.into()))?;
                        executor_samples(&executor)
                    }
                });
            }
        }
        for (index, (&(iterations, _), schedule)) in
            LOOPS.iter().flat_map(|each| SCHEDULES.map(|schedule| (each, schedule))).enumerate()
        {
            for (&system, samples) in SYSTEMS.iter().zip(&samples) {
                let of_loop = || samples.iter().filter(|sample| sample.0 == index);
                let work = quantile(of_loop().map(|sample| sample.2).collect(), 0.5);
                let overheads: Vec<_> = of_loop().map(|sample| sample.1 - work).collect();
                let [p10, median, p90] = [0.1, 0.5, 0.9].map(|q| quantile(overheads.clone(), q));
                self.rows.push(Row { threads: threads.get(), schedule, iterations, system, work, p10, median, p90 });
            }
        }
        Ok(())
    }

    fn to_json(&self) -> serde_json::Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "threads": row.threads,
                "schedule": row.schedule.to_string(),
                "iterations_per_thread": row.iterations,
                "system": row.system.to_string(),
                "work_us": row.work,
                "overhead_us": { "p10": row.p10, "median": row.median, "p90": row.p90 },
            })
        });
        rows.collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header([
            "threads",
            "schedule",
            "iterations/thread",
            "system",
            "work us",
            "p10 us",
            "median us",
            "p90 us",
        ]);
        for row in &self.rows {
            table.add_row([
                row.threads.to_string(),
                row.schedule.to_string(),
                row.iterations.to_string(),
                row.system.to_string(),
                format!("{:.3}", row.work),
                format!("{:.3}", row.p10),
                format!("{:.3}", row.median),
                format!("{:.3}", row.p90),
            ]);
        }
        for column in [0, 2, 4, 5, 6, 7] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        writeln!(f, "Overhead of a parallel loop, {ROUNDS} rounds of {SAMPLES} samples, systems taking turns:\n")?;
        write!(f, "{table}")
    }
}

/// The value below which the fraction `q` of the values lies, interpolated.
fn quantile(mut values: Vec<f64>, q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return f64::NAN };
    let position = q * last as f64;
    #[expect(clippy::cast_possible_truncation, reason = "a position within the values")]
    let below = position as usize;
    let above = (below + 1).min(last);
    values[below] + (values[above] - values[below]) * (position - below as f64)
}

/// The iteration of `fork_join.c`.
#[inline(never)]
fn delay(steps: u32) {
    let mut x = 1_u64;
    for _ in 0..steps {
        x = (x ^ (x >> 7)).wrapping_mul(6_364_136_223_846_793_005);
    }
    hint::black_box(x);
}

fn team_samples(threads: NonZeroUsize, bound: bool) -> Result<Vec<Sample>, ForkJoinError> {
    let measure = || {
        let pinning = if bound { Pinning::Compact } else { Pinning::None };
        let team = Team::builder().threads(threads).pinning(pinning).build()?;
        team.pin_caller()?;
        Ok(executor_samples(&team))
    };
    // On a thread of its own, which takes the pinning with it when it ends.
    thread::scope(|scope| scope.spawn(measure).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        .map_err(|error: dlis_cpu_omp::TeamError| ForkJoinError::Executor(error.into()))
}

fn executor_samples(executor: &dyn Executor) -> Vec<Sample> {
    let steps = hint::black_box(DELAY_STEPS);
    let mut samples = Vec::with_capacity(SAMPLES * LOOPS.len() * SCHEDULES.len());
    for sample in 0..=SAMPLES {
        let loops = LOOPS.iter().flat_map(|each| SCHEDULES.map(|schedule| (each, schedule)));
        for (index, (&(iterations, regions), schedule)) in loops.enumerate() {
            let start = Instant::now();
            for _ in 0..regions {
                for _ in 0..iterations {
                    delay(steps);
                }
            }
            let middle = Instant::now();
            for _ in 0..regions {
                executor.for_each(iterations * executor.threads().get(), schedule, &|_worker, range| {
                    for _ in range {
                        delay(steps);
                    }
                });
            }
            let end = Instant::now();
            // The first sample warms up.
            if sample > 0 {
                let per_region = |time: Duration| time.as_secs_f64() * 1e6 / regions as f64;
                samples.push((index, per_region(end - middle), per_region(middle - start)));
            }
        }
    }
    samples
}

/// The compiled `fork_join.c`, in a folder that goes when this does.
#[derive(Debug)]
struct Reference {
    folder: PathBuf,
}

impl Reference {
    fn compile() -> Result<Self, ForkJoinError> {
        let folder = std::env::temp_dir().join(format!("dlis-fork-join-{}", process::id()));
        fs::create_dir(&folder)?;
        let reference = Self { folder };
        let source = reference.folder.join("fork_join.c");
        fs::write(&source, SOURCE)?;
        let output = Command::new("gcc")
            .args(["-O2", "-fopenmp", "-o"])
            .arg(reference.program())
            .arg(&source)
            .output()
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => ForkJoinError::NoCompiler,
                _ => ForkJoinError::Io(error),
            })?;
        if output.status.success() {
            Ok(reference)
        } else {
            Err(ForkJoinError::Compile(String::from_utf8_lossy(&output.stderr).into_owned()))
        }
    }

    fn program(&self) -> PathBuf {
        Path::new(&self.folder).join("fork_join")
    }

    fn samples(&self, threads: NonZeroUsize, bound: bool) -> Result<Vec<Sample>, ForkJoinError> {
        let mut command = Command::new(self.program());
        command.arg(SAMPLES.to_string()).arg(DELAY_STEPS.to_string());
        for (iterations, regions) in LOOPS {
            command.arg(iterations.to_string()).arg(regions.to_string());
        }
        // What the user may have set would decide how the threads wait.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("OMP_") || name.starts_with("GOMP_")) {
                command.env_remove(name);
            }
        }
        command.env("OMP_NUM_THREADS", threads.to_string()).env("OMP_DYNAMIC", "false");
        command.env("OMP_PROC_BIND", if bound { "close" } else { "false" });
        let output = command.output()?;
        if !output.status.success() {
            return Err(ForkJoinError::Reference(format!("ended with {}", output.status)));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let parse = |line: &str| {
            let mut words = line.split(' ');
            let sample = (words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            Some(sample)
        };
        text.lines()
            .map(|line| parse(line).ok_or_else(|| ForkJoinError::Reference(format!("printed `{line}`"))))
            .collect()
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        // Left in the temporary folder if this fails, which harms nobody.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate() {
        let values = || vec![3.0, 1.0, 2.0, 4.0];
        assert_eq!(quantile(values(), 0.0), 1.0);
        assert_eq!(quantile(values(), 0.5), 2.5);
        assert_eq!(quantile(values(), 1.0), 4.0);
        assert!(quantile(Vec::new(), 0.5).is_nan());
    }

    #[test]
    fn an_executor_is_sampled_as_often_as_the_reference() {
        let samples = executor_samples(&dlis_backend::Serial);
        assert_eq!(samples.len(), SAMPLES * LOOPS.len() * SCHEDULES.len());
        for index in 0..LOOPS.len() * SCHEDULES.len() {
            assert_eq!(samples.iter().filter(|sample| sample.0 == index).count(), SAMPLES);
        }
        assert!(samples.iter().all(|&(_, parallel, serial)| parallel > 0.0 && serial > 0.0));
    }
}

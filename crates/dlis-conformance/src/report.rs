//! What a suite found out, kernel by kernel.

use std::collections::BTreeMap;
use std::fmt;

use dlis_backend::KernelId;

use crate::outcome::Outcome;

/// What became of one kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Cases that it computed rightly.
    pub passed: usize,
    /// Layouts and weight formats of those, all cases together.
    pub variants: usize,
    /// Reasons it gave for declining a case, and how many cases.
    pub unsupported: BTreeMap<String, usize>,
    /// Cases that it computed wrongly, and how.
    pub failed: Vec<(String, String)>,
    /// Why it was not run at all: the machine lacks what it needs.
    pub skipped: Option<String>,
}

/// What a suite found out, kernel by kernel. Printing it (it is [`Display`](fmt::Display)) is the
/// caller's to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    kernels: BTreeMap<KernelId, Tally>,
    notes: Vec<String>,
    faults: Vec<String>,
}

/// Kernels that have not been proved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} of the suite's findings:\n{}", .findings.len(), .findings.join("\n"))]
pub struct Unproven {
    /// One line each.
    pub findings: Vec<String>,
}

impl Report {
    /// Notes the outcome of a case; `context` says on what it ran, where that is not plain.
    pub fn record(&mut self, kernel: &KernelId, case: &str, context: &str, outcome: Outcome) {
        let tally = self.kernels.entry(kernel.clone()).or_default();
        match outcome {
            Outcome::Passed { variants } => {
                tally.passed += 1;
                tally.variants += variants;
            }
            Outcome::Unsupported(reason) => *tally.unsupported.entry(reason).or_default() += 1,
            Outcome::Failed(detail) => tally.failed.push((format!("{case}{context}"), detail)),
        }
    }

    /// Notes that a kernel is not run here.
    pub fn skip(&mut self, kernel: &KernelId, reason: impl Into<String>) {
        self.kernels.entry(kernel.clone()).or_default().skipped = Some(reason.into());
    }

    /// Notes something that is left out, which the text then says.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Notes something that is wrong but with no one kernel's result.
    pub fn fault(&mut self, text: impl Into<String>) {
        self.faults.push(text.into());
    }

    /// Adds what another suite found out.
    pub fn merge(&mut self, other: Self) {
        for (kernel, tally) in other.kernels {
            let into = self.kernels.entry(kernel).or_default();
            into.passed += tally.passed;
            into.variants += tally.variants;
            into.failed.extend(tally.failed);
            into.skipped = into.skipped.take().or(tally.skipped);
            for (reason, count) in tally.unsupported {
                *into.unsupported.entry(reason).or_default() += count;
            }
        }
        for (into, from) in [(&mut self.notes, other.notes), (&mut self.faults, other.faults)] {
            from.into_iter().for_each(|text| {
                if !into.contains(&text) {
                    into.push(text);
                }
            });
        }
    }

    /// The same report without the kernels that `keep` says no to.
    #[must_use]
    pub fn retain(mut self, keep: impl Fn(&KernelId) -> bool) -> Self {
        self.kernels.retain(|kernel, _| keep(kernel));
        self
    }

    /// Every kernel and what became of it.
    pub fn kernels(&self) -> impl Iterator<Item = (&KernelId, &Tally)> {
        self.kernels.iter()
    }

    /// Fails unless every kernel that was not skipped computed at least one case, and all rightly. A
    /// kernel that declines everything has not been tested.
    ///
    /// # Errors
    ///
    /// [`Unproven`], a line for each finding.
    pub fn verdict(&self) -> Result<(), Unproven> {
        let mut findings = self.faults.clone();
        if self.kernels.is_empty() {
            findings.push("no kernel was tested".to_owned());
        }
        for (kernel, tally) in &self.kernels {
            findings.extend(tally.failed.iter().map(|(case, detail)| format!("{kernel}: {case}: {detail}")));
            if tally.passed == 0 && tally.failed.is_empty() && tally.skipped.is_none() {
                let reasons: Vec<&str> = tally.unsupported.keys().map(String::as_str).collect();
                findings.push(format!("{kernel}: supports none of the cases: {}", reasons.join("; ")));
            }
        }
        if findings.is_empty() { Ok(()) } else { Err(Unproven { findings }) }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kernel, tally) in &self.kernels {
            if let Some(reason) = &tally.skipped {
                writeln!(f, "{kernel}: skipped: {reason}")?;
                continue;
            }
            let declined: usize = tally.unsupported.values().sum();
            let (passed, variants, failed) = (tally.passed, tally.variants, tally.failed.len());
            writeln!(
                f,
                "{kernel}: {passed} cases passed ({variants} variants), {declined} unsupported, {failed} failed"
            )?;
            for (case, detail) in &tally.failed {
                writeln!(f, "  FAILED {case}: {detail}")?;
            }
        }
        for fault in &self.faults {
            writeln!(f, "FAULT {fault}")?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: KernelId = KernelId::new("add", "f32", "none", "plain", "portable");

    fn report(outcomes: &[Outcome]) -> Report {
        let mut report = Report::default();
        for outcome in outcomes {
            report.record(&ID, "a case", "", outcome.clone());
        }
        report
    }

    #[test]
    fn a_kernel_that_passes_nothing_is_not_proved() {
        let unsupported = Outcome::Unsupported("it is Tuesday".to_owned());
        assert_eq!(report(&[Outcome::Passed { variants: 1 }, unsupported.clone()]).verdict(), Ok(()));
        let findings = report(&[unsupported]).verdict().unwrap_err().findings;
        assert_eq!(findings, ["add/f32/none/plain/portable: supports none of the cases: it is Tuesday"]);
        assert!(Report::default().verdict().is_err());
    }

    #[test]
    fn failures_and_faults_are_findings_and_skips_are_said() {
        let mut report = report(&[Outcome::Passed { variants: 2 }, Outcome::Failed("off by one".to_owned())]);
        report.fault("two kernels of one name");
        let findings = report.verdict().unwrap_err().findings;
        assert_eq!(findings, ["two kernels of one name", "add/f32/none/plain/portable: a case: off by one"]);
        let mut skipped = Report::default();
        skipped.skip(&ID, "the machine has no avx512");
        assert_eq!(skipped.verdict(), Ok(()));
        assert_eq!(skipped.to_string(), "add/f32/none/plain/portable: skipped: the machine has no avx512\n");
        report.merge(skipped);
        assert_eq!(report.kernels().next().unwrap().1.failed.len(), 1);
    }
}

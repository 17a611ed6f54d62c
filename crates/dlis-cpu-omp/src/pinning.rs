//! Which CPU each worker of a team stays on.

use core_affinity::CoreId;

use crate::TeamError;

/// Which CPU each worker of a team stays on.
///
/// Worker 0 is whichever thread calls `for_each`. Changing where that thread may run is not the
/// business of a library it happens to call (OpenMP runtimes do it under `OMP_PROC_BIND`, and every
/// thread that the program starts afterwards then inherits a single CPU), so building a team pins
/// the threads it spawns only and leaves the CPU of worker 0 free;
/// [`Team::pin_caller`](crate::Team::pin_caller) puts the calling thread there on request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Pinning {
    /// The operating system decides.
    #[default]
    None,
    /// Worker `i` on the `i`-th CPU that the building thread may run on, starting over where workers
    /// outnumber CPUs.
    Compact,
    /// Worker `i` on the CPU with the number at position `i`; one for each worker, the calling thread
    /// included.
    Cpus(Vec<usize>),
}

impl Pinning {
    /// The CPU of each of `threads` workers, or none where the operating system decides.
    pub(crate) fn resolve(&self, threads: usize) -> Result<Option<Vec<CoreId>>, TeamError> {
        if *self == Self::None {
            return Ok(None);
        }
        let allowed = core_affinity::get_core_ids().filter(|cores| !cores.is_empty()).ok_or(TeamError::UnknownCpus)?;
        match self {
            Self::None => Ok(None),
            Self::Compact => Ok(Some(allowed.into_iter().cycle().take(threads).collect())),
            Self::Cpus(cpus) => {
                if cpus.len() != threads {
                    return Err(TeamError::CpuCount { threads, cpus: cpus.len() });
                }
                let find = |&cpu: &usize| {
                    allowed.iter().copied().find(|core| core.id == cpu).ok_or_else(|| TeamError::CpuNotAllowed {
                        cpu,
                        allowed: allowed.iter().map(|core| core.id).collect(),
                    })
                };
                cpus.iter().map(find).collect::<Result<_, _>>().map(Some)
            }
        }
    }
}

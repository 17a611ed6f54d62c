//! Programs: compiled once a device and set of options, and kept on disk.

use std::ffi::CString;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use ocl_core as cl;
use sha2::{Digest, Sha256};

use super::{Device, cache};
use crate::error::{OpenClError, call};

/// A compiled program. Clones are the same.
#[derive(Clone)]
pub struct Program(cl::Program);

impl Program {
    pub(super) fn handle(&self) -> &cl::Program {
        &self.0
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Program")
    }
}

impl Device {
    /// Compiles a program, or finds it compiled: in this process, or in the cache on disk, where programs are kept
    /// by source, options, device and driver. `name` is for errors and traces.
    ///
    /// # Errors
    ///
    /// [`OpenClError::Build`] with the compiler's log.
    pub fn program(self: &Arc<Self>, name: &'static str, source: &str, options: &str) -> Result<Program, OpenClError> {
        let info = self.info();
        let mut hash = Sha256::new();
        for part in [source, options, &info.name, &info.driver, &info.version, &info.platform] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let key: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        // One lock for all programs: two threads that want the same one compile it once.
        let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = programs.get(&key) {
            return Ok(program.clone());
        }
        let start = Instant::now();
        let program = match self.read_cache(&key) {
            Some(program) => program,
            None => {
                let _span = tracing::debug_span!("compile", program = name, options).entered();
                let program = self.compile(name, source, options)?;
                self.write_cache(&key, &program);
                program
            }
        };
        let took = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.compile_ns.fetch_add(took, Ordering::Relaxed);
        programs.insert(key, program.clone());
        Ok(program)
    }

    fn compile(&self, name: &'static str, source: &str, options: &str) -> Result<Program, OpenClError> {
        let text = |text: &str, call| {
            CString::new(text).map_err(|error| OpenClError::Call { call, reason: error.to_string() })
        };
        let source = text(source, "reading a source")?;
        let program = call("creating a program", cl::create_program_with_source(&self.context, &[source]))?;
        let built = cl::build_program(&program, Some(&[self.id]), &text(options, "reading options")?, None, None);
        built.map_err(|error| OpenClError::Build {
            device: self.info().to_string(),
            program: name,
            options: options.to_owned(),
            log: error.to_string(),
        })?;
        Ok(Program(program))
    }

    /// `None` where there is none, or one that the driver does not take any more.
    fn read_cache(&self, key: &str) -> Option<Program> {
        let binary = cache::read(key)?;
        let program = cl::create_program_with_binary(&self.context, &[self.id], &[&binary]).ok()?;
        cl::build_program(&program, Some(&[self.id]), &CString::default(), None, None).ok()?;
        Some(Program(program))
    }

    /// A program that cannot be kept is compiled again the next time.
    fn write_cache(&self, key: &str, program: &Program) {
        if let Ok(cl::ProgramInfoResult::Binaries(binaries)) =
            cl::get_program_info(&program.0, cl::ProgramInfo::Binaries)
            && let [binary] = &binaries[..]
            && let Err(error) = cache::write(key, binary)
        {
            tracing::debug!(%error, "a compiled program is not kept");
        }
    }
}

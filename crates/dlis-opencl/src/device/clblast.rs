//! CLBlast, a library of matrix operations on OpenCL devices, found when it is first wanted.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::OnceLock;

use libloading::Library;
use ocl_core as cl;

use super::{Buffer, Queue};
use crate::error::OpenClError;

/// What the library is called, on the systems that have it.
const NAMES: [&str; 4] = ["libclblast.so.1", "libclblast.so", "libclblast.dylib", "clblast.dll"];

/// `CLBlastLayoutRowMajor` and `CLBlastTransposeNo` of `clblast_c.h`.
const ROW_MAJOR: c_int = 101;
const AS_STORED: c_int = 111;

/// `CLBlastSgemm` of `clblast_c.h`: layout, transpositions of a and b; m, n, k; alpha; a, b with offset and row
/// stride; beta; c; queue and event.
type Sgemm = unsafe extern "C" fn(
    c_int,
    c_int,
    c_int,
    usize,
    usize,
    usize,
    f32,
    *mut c_void,
    usize,
    usize,
    *mut c_void,
    usize,
    usize,
    f32,
    *mut c_void,
    usize,
    usize,
    *mut *mut c_void,
    *mut *mut c_void,
) -> c_int;

struct ClBlast {
    sgemm: Sgemm,
    /// Keeps the function loaded.
    _library: Library,
}

/// Why there is none, as a clause that completes "not chosen because …".
fn library() -> Result<&'static ClBlast, &'static str> {
    static LIBRARY: OnceLock<Option<ClBlast>> = OnceLock::new();
    let load = || {
        // SAFETY: loading runs the initialisers of CLBlast (and of the OpenCL loader, which is loaded already), which
        // ask nothing of their caller.
        let library = NAMES.iter().find_map(|name| unsafe { Library::new(*name) }.ok())?;
        // SAFETY: the function of this name has this type in every version of the library.
        let sgemm = unsafe { library.get::<Sgemm>(b"CLBlastSgemm\0") }.ok().map(|function| *function)?;
        Some(ClBlast { sgemm, _library: library })
    };
    LIBRARY.get_or_init(load).as_ref().ok_or(
        "CLBlast is not installed: install the library (Debian's `libclblast1`), or put it where the loader looks",
    )
}

/// Whether the library is there.
///
/// # Errors
///
/// How to get it.
pub(crate) fn is_installed() -> Result<(), &'static str> {
    library().map(|_| ())
}

/// A row-major matrix of f32 in a device's memory.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    /// The memory that it lies in.
    pub buffer: Buffer,
    /// Its first element.
    pub offset: usize,
    /// Elements from row to row.
    pub stride: usize,
}

/// `c = a * b`.
#[derive(Clone, Debug)]
pub(crate) struct Gemm {
    /// Rows of `c`, columns of `c`, columns of `a`.
    pub extents: [usize; 3],
    /// Of m rows and k columns.
    pub a: Matrix,
    /// Of k rows and n columns.
    pub b: Matrix,
    /// Of m rows and n columns.
    pub c: Matrix,
}

impl Gemm {
    /// Whether every matrix lies within its buffer.
    fn is_within(&self) -> bool {
        let [m, n, k] = self.extents;
        let within = |matrix: &Matrix, rows: usize, columns: usize| {
            let last = rows.saturating_sub(1) * matrix.stride + columns;
            columns <= matrix.stride && (matrix.offset + last) * size_of::<f32>() <= matrix.buffer.bytes()
        };
        within(&self.a, m, k) && within(&self.b, k, n) && within(&self.c, m, n)
    }

    /// Queues it; the event is of the last kernel that the library queues.
    pub(super) fn enqueue(&self, queue: &Queue, event: Option<&mut cl::Event>) -> Result<(), OpenClError> {
        let failed = |reason: String| OpenClError::Call { call: "CLBlastSgemm", reason };
        let library = library().map_err(|reason| failed(reason.to_owned()))?;
        if !self.is_within() {
            return Err(failed("a matrix reaches beyond its buffer".to_owned()));
        }
        let [m, n, k] = self.extents;
        let Self { a, b, c, .. } = self;
        let memory = |matrix: &Matrix| matrix.buffer.memory().as_ptr();
        let mut queue = queue.handle().as_ptr();
        let mut made: *mut c_void = ptr::null_mut();
        let to_event = if event.is_some() { &raw mut made } else { ptr::null_mut() };
        // SAFETY: handles are of living objects of one context, the matrices lie within their buffers, and the two
        // pointers are to variables that outlive the call.
        let status = unsafe {
            (library.sgemm)(
                ROW_MAJOR,
                AS_STORED,
                AS_STORED,
                m,
                n,
                k,
                1.0,
                memory(a),
                a.offset,
                a.stride,
                memory(b),
                b.offset,
                b.stride,
                0.0,
                memory(c),
                c.offset,
                c.stride,
                &raw mut queue,
                to_event,
            )
        };
        if status != 0 {
            return Err(failed(format!("status {status}")));
        }
        if let Some(event) = event
            && !made.is_null()
        {
            // SAFETY: the library has made the event for its caller to release.
            *event = unsafe { cl::Event::from_raw_create_ptr(made) };
        }
        Ok(())
    }
}

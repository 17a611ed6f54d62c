//! Layer 3 of the stack, algorithms: the CPU kernels, generic over the SIMD level and the executor.
//!
//! [`kernels`] lists them all. Each says of itself which operations it executes ([`Kernel::support`]) and how
//! well ([`Kernel::efficiency`]); choosing among them is the runtime's business. None looks for threads: what
//! runs in parallel runs on the executor it is handed. None allocates while it runs, but for
//! `conv2d/f32/dense/im2col-gemm/matrixmultiply`, whose library allocates and frees a packing buffer on
//! every call.
//!
//! A kernel is its [`Kernel`] and its [`Prepared`](dlis_backend::Prepared) form, and its name in the `KERNELS` list
//! of its operation: at the end of the operation's file, or of `conv2d/mod.rs`, where an algorithm is a file.
//!
//! ```
//! use dlis_backend::{Epilogue, Io, Layout, OpSpec, OpWeights, Operation, Parallel};
//! use dlis_backend::{Schedule, Scratch, Serial, TensorSpec, View, ViewMut};
//! use dlis_hw::Hardware;
//!
//! let spec = TensorSpec::f32(1, [3, 1, 1], Layout::Nchw);
//! let op = OpSpec {
//!     operation: Operation::Add,
//!     inputs: vec![spec, spec],
//!     output: spec,
//!     epilogue: Epilogue::NONE,
//!     weight: None,
//! };
//! let hw = Hardware::detect();
//! let kernel = dlis_kernels::kernels().iter().find(|kernel| kernel.support(&op, &hw).is_yes()).unwrap();
//! let prepared = kernel.prepare_checked(&op, OpWeights::default(), &hw)?;
//!
//! let inputs = [View::of(spec, &[1.0, 2.0, 3.0]), View::of(spec, &[10.0, 20.0, 30.0])];
//! let mut sum = [0.0; 3];
//! let mut io = Io::new(&inputs, None, ViewMut::of(spec, &mut sum));
//! let mut scratch = Scratch::new(&mut [], &mut [], 1);
//! prepared.run(&mut io, &mut scratch, Parallel::new(&Serial, Schedule::Static));
//! assert_eq!(sum, [11.0, 22.0, 33.0]);
//! # Ok::<(), dlis_backend::PrepareError>(())
//! ```

mod accepts;
mod axis;
mod blocks;
mod concat;
mod conv2d;
mod elementwise;
mod epilogue;
mod fold;
mod grid;
mod half;
mod linear;
mod pool;
mod quantized;
mod reorder;
mod runs;
mod simd;
mod softmax;
mod support;
mod tasks;
#[cfg(test)]
mod testing;

use std::sync::LazyLock;

use dlis_backend::Kernel;

/// Every kernel, those of one operation together.
pub fn kernels() -> &'static [&'static dyn Kernel] {
    static ALL: LazyLock<Vec<&dyn Kernel>> = LazyLock::new(|| {
        let others = [elementwise::KERNELS, softmax::KERNELS, concat::KERNELS, reorder::KERNELS];
        let layers = [&[linear::KERNELS], pool::KERNELS].concat();
        [conv2d::KERNELS.concat(), layers.concat(), others.concat(), quantized::KERNELS.concat()].concat()
    });
    &ALL
}

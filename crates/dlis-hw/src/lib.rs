//! Layer 5 of the stack: what machine this is (ISA, caches, topology), its measured peaks, and its
//! fingerprint.
//!
//! * [`Hardware`] says what the machine is. [`Hardware::detect`] never fails: what it cannot find out is
//!   `None`.
//! * [`SimdLevel`] names the instruction sets kernels are written for; [`Hardware::with_simd`] hides the
//!   higher ones, so that every kernel can be tested on one machine.
//! * [`Hardware::fingerprint`] is the key of everything that was measured on a machine.
//! * [`Peaks`] are its measured floating-point rate and memory bandwidth, [`Roofline`] turns them into the
//!   least time a piece of work can take.
//! * [`energy`] reads the processor's energy counters where the operating system shows them.
//!
//! ```
//! use dlis_hw::{Hardware, SimdLevel};
//!
//! let hw = Hardware::detect();
//! assert!(hw.supports(SimdLevel::Portable) && hw.logical_cores >= 1);
//! let plain = hw.with_simd(SimdLevel::Portable);
//! assert_eq!(plain.simd(), SimdLevel::Portable);
//! ```
//!
//! Linux is read through procfs and sysfs, macOS through `sysctl`; elsewhere the instruction sets and the
//! core count are known and the rest is `None`. Unsafe code is confined to the kernels that measure peaks.

#![deny(unsafe_code)]

mod cache;
pub mod energy;
mod facts;
mod hardware;
mod isa;
mod linux;
mod macos;
mod peaks;
mod roofline;
mod simd;

pub use cache::Cache;
pub use hardware::Hardware;
pub use peaks::{BandwidthPeak, ComputePeak, Peaks, Rate};
pub use roofline::{Bound, Roofline};
pub use simd::{SimdLevel, UnknownSimdLevel};

//! What the tests share: the device that `DLIS_OPENCL_DEVICE` names (an index or part of a name), else the first.
//!
//! Without a device nothing can be tested: the tests fail unless `DLIS_OPENCL_OPTIONAL` is set.

use std::io::Write as _;
use std::sync::Arc;

use dlis_opencl::Device;

/// The device to test, if there is one.
pub(crate) fn device() -> Option<Arc<Device>> {
    let selector = std::env::var("DLIS_OPENCL_DEVICE").unwrap_or_else(|_| "0".to_owned());
    match Device::open(&selector) {
        Ok(device) => Some(device),
        Err(error) if std::env::var_os("DLIS_OPENCL_OPTIONAL").is_some() => {
            let _ = writeln!(std::io::stderr(), "nothing is tested: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

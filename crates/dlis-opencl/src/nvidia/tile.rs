//! Which part of a convolution's matrix product a work-group computes.

use std::fmt;

use dlis_backend::OpSpec;
use dlis_model::Window;

use crate::device::DeviceInfo;
use crate::precision::Precision;

/// A way to cut the matrix product into work-groups: extents as `mma_conv.cl` takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tile {
    /// Rows and columns of the output.
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Bytes of K a stage.
    pub(crate) k_bytes: usize,
    /// Warps along rows and columns.
    pub(crate) warps: [usize; 2],
    pub(crate) stages: usize,
    /// Registers that the compiler may use a work-item, so that two work-groups fit a multiprocessor; 0: any number.
    pub(crate) registers: usize,
    /// Work-groups that a multiprocessor needs at once to be as fast as it can.
    pub(crate) resident: usize,
}

const fn tile(extents: [usize; 3], warps: [usize; 2], [stages, registers, resident]: [usize; 3]) -> Tile {
    let [rows, columns, k_bytes] = extents;
    Tile { rows, columns, k_bytes, warps, stages, registers, resident }
}

/// Tiles, and the multiply-adds per microsecond (in millions) that one multiprocessor of an H200 reached with each, in
/// f16, tf32 and f32: fitted to about 200 measurements a precision of the layers of VGG-16, ResNet-18 and MobileNet,
/// which the fit reproduces to 6 %. 0: of no use.
const TILES: [(Tile, [f64; 3]); 10] = [
    (tile([256, 128, 128], [4, 2], [3, 0, 1]), [1.89, 0.98, 0.22]),
    (tile([256, 128, 64], [4, 2], [4, 0, 1]), [1.76, 0.93, 0.235]),
    (tile([128, 128, 128], [2, 2], [3, 0, 1]), [1.55, 0.815, 0.21]),
    (tile([128, 128, 64], [2, 4], [4, 128, 1]), [1.25, 0.68, 0.225]),
    (tile([256, 64, 128], [4, 2], [3, 128, 1]), [1.23, 0.69, 0.215]),
    (tile([128, 64, 64], [2, 2], [3, 0, 4]), [1.12, 0.66, 0.225]),
    (tile([64, 128, 128], [2, 2], [4, 0, 1]), [1.01, 0.515, 0.19]),
    (tile([64, 64, 128], [2, 2], [4, 0, 1]), [0.76, 0.43, 0.18]),
    (tile([128, 32, 64], [4, 1], [3, 0, 4]), [0.5, 0.3, 0.13]),
    (tile([32, 32, 128], [2, 1], [4, 0, 2]), [0.25, 0.15, 0.07]),
];

/// Where the instructions are emulated, small tiles of every kind are as good as any and compile sooner.
const EMULATED: [(Tile, [f64; 3]); 2] =
    [(tile([32, 32, 64], [2, 1], [2, 0, 1]), [1e-3; 3]), (tile([32, 64, 128], [1, 2], [3, 0, 1]), [1e-3; 3])];

/// Work-groups that may share the K of one tile.
const SPLITS: [usize; 4] = [1, 2, 4, 8];

/// What a launch costs besides its products, in microseconds: reading and adding the sums of split tiles, for each 10,000
/// elements.
const SPLIT_US: f64 = 0.75;

/// The matrix product of a convolution, or of a linear layer, which is one of a single tap and pixel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product {
    /// Output pixels.
    pub(crate) m: usize,
    /// Output channels.
    pub(crate) n: usize,
    /// Taps times input channels.
    pub(crate) k: usize,
    /// Bytes of an element.
    pub(crate) element: usize,
    /// Bytes that are contiguous and aligned in every pixel's channels.
    pub(crate) piece: usize,
    precision: Precision,
}

impl Product {
    pub(crate) fn new(op: &OpSpec, window: Window, precision: Precision) -> Self {
        let (x, y) = (op.inputs[0], op.output);
        let element = precision.bytes();
        let piece = [16, 8, 4, 2].into_iter().find(|piece| (x.channels * element).is_multiple_of(*piece));
        Self {
            m: y.batch * y.height * y.width,
            n: y.channels,
            k: window.kernel[0] * window.kernel[1] * x.channels,
            element,
            piece: piece.expect("an element has two bytes at least"),
            precision,
        }
    }
}

/// Cuts that are worth timing: among so many the fit has the fastest.
const CANDIDATES: usize = 6;

/// A tile, and how many work-groups share its K.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) tile: Tile,
    pub(crate) split: usize,
}

impl Tile {
    pub(crate) const fn items(&self) -> usize {
        32 * self.warps[0] * self.warps[1]
    }

    /// Bytes of local memory.
    const fn local_bytes(&self) -> usize {
        self.stages * (self.rows + self.columns) * self.k_bytes
    }

    /// Tiles of K.
    pub(crate) fn depth(&self, product: &Product) -> usize {
        (product.k * product.element).div_ceil(self.k_bytes)
    }

    /// Columns of the packed weights.
    pub(crate) fn packed_columns(&self, product: &Product) -> usize {
        product.n.next_multiple_of(self.columns)
    }

    /// Whether no work-item has to keep track of more rows than registers can hold. Small pieces make many rows, of
    /// which shorter stages copy fewer.
    fn suits(&self, product: &Product) -> bool {
        let pieces = self.k_bytes / product.piece;
        (product.piece == 16 || self.k_bytes == 64)
            && self.items().is_multiple_of(pieces)
            && self.rows * pieces / self.items() <= 32
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tile { rows, columns, k_bytes, warps, stages, .. } = self.tile;
        write!(f, "{rows}x{columns}x{k_bytes}/{}x{}/{stages}/{}", warps[0], warps[1], self.split)
    }
}

impl Cut {
    /// Tiles of the output.
    pub(crate) fn tiles(&self, product: &Product) -> usize {
        product.m.div_ceil(self.tile.rows) * product.n.div_ceil(self.tile.columns)
    }

    /// Bytes of the sums of split tiles.
    pub(crate) fn scratch_bytes(&self, product: &Product) -> usize {
        let elements = self.tiles(product) * self.split * self.tile.rows * self.tile.columns;
        if self.split > 1 { elements * size_of::<f32>() } else { 0 }
    }

    /// Microseconds that it is expected to take on so many multiprocessors, besides what all cuts take.
    fn cost(&self, rate: f64, product: &Product, multiprocessors: usize) -> f64 {
        let Tile { rows, columns, k_bytes, resident, .. } = self.tile;
        let rounds = (self.tiles(product) * self.split).div_ceil(multiprocessors);
        let elements = (rows * columns) as f64;
        let depth = self.tile.depth(product).div_ceil(self.split) * k_bytes / product.element;
        let added = if self.split > 1 { (self.split * (rounds / self.split).max(1)) as f64 } else { 0.0 };
        SPLIT_US * added * elements / 1e4 + rounds.max(resident) as f64 * elements * depth as f64 / (rate * 1e6)
    }
}

/// Bytes of local memory that a work-group may have, which OpenCL does not tell: "Technical Specifications per Compute
/// Capability" of the CUDA C++ Programming Guide.
fn local_limit(device: &DeviceInfo) -> usize {
    let kilobytes = match device.compute_capability {
        Some([8, 0 | 7]) => 163,
        Some([9..=11, _]) => 227,
        _ => 99,
    };
    kilobytes << 10
}

/// The cuts worth trying, that which is expected to take the least time first.
pub(crate) fn candidates(product: &Product, device: &DeviceInfo) -> Vec<Cut> {
    let column = match product.precision {
        Precision::F16 => 0,
        Precision::Tf32 => 1,
        Precision::F32 => 2,
    };
    let multiprocessors = device.compute_units.max(1);
    let tiles: &[(Tile, [f64; 3])] = if device.compute_capability.is_some() { &TILES } else { &EMULATED };
    let fits = |tile: &Tile| tile.local_bytes() <= local_limit(device) && tile.suits(product);
    let mut cuts: Vec<(f64, Cut)> = Vec::new();
    for (tile, rates) in tiles.iter().filter(|(tile, _)| fits(tile)) {
        for split in SPLITS.into_iter().filter(|&split| split <= tile.depth(product)) {
            let cut = Cut { tile: *tile, split };
            // More work-groups than run at once are no gain.
            if split == 1 || cut.tiles(product) * split <= 4 * multiprocessors {
                cuts.push((cut.cost(rates[column], product, multiprocessors), cut));
            }
        }
    }
    cuts.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    cuts.truncate(CANDIDATES);
    cuts.into_iter().map(|(_, cut)| cut).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tile_is_one_that_the_kernel_can_compute() {
        for (tile, _) in TILES.iter().chain(&EMULATED) {
            let [rows, columns] = [tile.rows / tile.warps[0], tile.columns / tile.warps[1]];
            assert!(rows.is_multiple_of(16) && columns.is_multiple_of(32), "{tile:?}");
            assert_eq!([rows * tile.warps[0], columns * tile.warps[1]], [tile.rows, tile.columns], "{tile:?}");
            assert!([64, 128].contains(&tile.k_bytes) && tile.stages >= 2, "{tile:?}");
            assert!(tile.local_bytes() <= 227 << 10, "{tile:?}");
        }
    }

    #[test]
    fn some_tile_suits_every_product() {
        for tiles in [&TILES[..], &EMULATED] {
            for piece in [2, 4, 8, 16] {
                let product = Product { m: 1, n: 1, k: 1, element: 2, piece, precision: Precision::F16 };
                let suits = |tile: &Tile| tile.suits(&product) && tile.local_bytes() <= 99 << 10;
                assert!(tiles.iter().any(|(tile, _)| suits(tile)), "{piece}");
            }
        }
    }
}

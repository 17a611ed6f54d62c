//! The forms in which a tensor may be wanted, and the cheapest way from those that there are to another.

use dlis_backend::{Layout, TensorSpec};

/// Numbers of a kind, one a layout.
pub(crate) type LayoutCosts = [f64; Layout::ALL.len()];

/// Whether a tensor is wanted in the element type in which it is made, or converted to the other.
pub(crate) const MADE: usize = 0;
pub(crate) const CONVERTED: usize = 1;

/// A tensor in an element type and a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    /// [`MADE`] or [`CONVERTED`].
    pub(crate) kind: usize,
    pub(crate) layout: Layout,
}

impl Form {
    /// Every form, those in which a tensor may be made first.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        [MADE, CONVERTED].into_iter().flat_map(|kind| Layout::ALL.map(|layout| Self { kind, layout }))
    }
}

/// Something of every form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ByForm<T>([[T; Layout::ALL.len()]; 2]);

impl<T> std::ops::Index<Form> for ByForm<T> {
    type Output = T;

    fn index(&self, form: Form) -> &T {
        &self.0[form.kind][form.layout as usize]
    }
}

impl<T> std::ops::IndexMut<Form> for ByForm<T> {
    fn index_mut(&mut self, form: Form) -> &mut T {
        &mut self.0[form.kind][form.layout as usize]
    }
}

/// The forms in which there is a tensor: as it was made, and what has been made of that since.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Existing {
    has: Layout,
    there: ByForm<bool>,
}

impl Existing {
    /// A tensor that was made in this layout.
    pub(crate) fn new(has: Layout) -> Self {
        let mut existing = Self { has, there: ByForm::default() };
        existing.insert(Form { kind: MADE, layout: has });
        existing
    }

    pub(crate) fn insert(&mut self, form: Form) {
        self.there[form] = true;
    }

    pub(crate) fn has(&self, form: Form) -> bool {
        self.there[form]
    }
}

/// How a form is made: of one that there is, maybe by way of one that there is then as well.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Way {
    pub(crate) cost: f64,
    pub(crate) from: Form,
    pub(crate) by: Option<Form>,
}

/// What moving one tensor costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TensorCosts {
    /// As made and converted, from the one layout to the other.
    pub(crate) reorder: [[LayoutCosts; Layout::ALL.len()]; 2],
    /// From the element type in which it is made to the other, by layout.
    pub(crate) convert: LayoutCosts,
}

impl TensorCosts {
    /// Costs of a tensor of which nothing is known but that moving it between layouts in which it is the same bytes
    /// costs nothing: all else costs as much as `most`.
    pub(crate) fn unknown(tensor: TensorSpec, most: f64) -> Self {
        let between = |from, to| if tensor.with_layout(from).is_in(to) { 0.0 } else { most };
        let reorder = Layout::ALL.map(|from| Layout::ALL.map(|to| between(from, to)));
        Self { reorder: [reorder; 2], convert: [most; Layout::ALL.len()] }
    }

    /// What one reorder or conversion costs; infinite if it takes more than one. What has been converted is not
    /// converted back: that would not give the same numbers.
    fn step(&self, from: Form, to: Form) -> f64 {
        match (from.kind, to.kind) {
            _ if from == to => 0.0,
            (MADE, CONVERTED) if from.layout == to.layout => self.convert[to.layout as usize],
            (before, after) if before == after => self.reorder[before][from.layout as usize][to.layout as usize],
            _ => f64::INFINITY,
        }
    }

    /// The cheapest way to a form that there is not yet: at most one reorder and one conversion, in either order.
    pub(crate) fn way(&self, existing: &Existing, to: Form) -> Way {
        let mut best = Way { cost: f64::INFINITY, from: Form { kind: MADE, layout: existing.has }, by: None };
        let mut consider = |cost: f64, from, by| {
            if cost < best.cost {
                best = Way { cost, from, by };
            }
        };
        for from in Form::all().filter(|&form| existing.has(form)) {
            consider(self.step(from, to), from, None);
            if from.kind != to.kind && from.layout != to.layout {
                for by in [Form { kind: to.kind, ..from }, Form { layout: to.layout, ..from }] {
                    consider(self.step(from, by) + self.step(by, to), from, Some(by));
                }
            }
        }
        best
    }

    /// What it costs to have a tensor that is made in a layout in every form that is wanted, each made once, the
    /// nearest first. Where they are used in another order, it may cost more.
    pub(crate) fn of(&self, has: Layout, wanted: &ByForm<u32>) -> f64 {
        let mut existing = Existing::new(has);
        let mut cost = 0.0;
        loop {
            let missing = Form::all().filter(|&form| wanted[form] > 0 && !existing.has(form));
            let ways = missing.map(|form| (form, self.way(&existing, form)));
            let Some((form, way)) = ways.min_by(|a, b| a.1.cost.total_cmp(&b.1.cost)) else { return cost };
            cost += way.cost;
            way.by.into_iter().chain([form]).for_each(|form| existing.insert(form));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NCHW: Form = Form { kind: MADE, layout: Layout::Nchw };
    const NHWC: Form = Form { kind: MADE, layout: Layout::Nhwc };
    const LANES: Form = Form { kind: MADE, layout: Layout::Nhwc16n };
    const BYTES: Form = Form { kind: CONVERTED, layout: Layout::Nhwc };

    /// Reorders of 10, but of 1 between the strided layouts; conversions of 5, but of 100 where images are lanes.
    fn costs() -> TensorCosts {
        let reorder = [[0.0, 1.0, 10.0], [1.0, 0.0, 10.0], [10.0, 10.0, 0.0]];
        TensorCosts { reorder: [reorder; 2], convert: [5.0, 5.0, 100.0] }
    }

    fn wanted(forms: &[Form]) -> ByForm<u32> {
        let mut wanted = ByForm::default();
        forms.iter().for_each(|&form| wanted[form] = 1);
        wanted
    }

    #[test]
    fn forms_are_made_of_the_nearest_that_there_is() {
        let mut existing = Existing::new(Layout::Nhwc16n);
        assert_eq!(costs().way(&existing, NHWC), Way { cost: 10.0, from: LANES, by: None });
        existing.insert(NCHW);
        assert_eq!(costs().way(&existing, NHWC), Way { cost: 1.0, from: NCHW, by: None });
        assert_eq!(
            costs().way(&existing, BYTES),
            Way { cost: 6.0, from: NCHW, by: Some(Form { kind: CONVERTED, ..NCHW }) }
        );
        existing.insert(NHWC);
        assert_eq!(costs().way(&existing, BYTES), Way { cost: 5.0, from: NHWC, by: None });
    }

    #[test]
    fn what_is_dear_to_convert_is_reordered_first() {
        let existing = Existing::new(Layout::Nhwc16n);
        assert_eq!(costs().way(&existing, BYTES), Way { cost: 15.0, from: LANES, by: Some(NHWC) });
    }

    #[test]
    fn nothing_is_converted_back() {
        let mut costs = costs();
        costs.reorder[MADE] = [[1e9; 3]; 3];
        let mut existing = Existing::new(Layout::Nhwc);
        existing.insert(Form { kind: CONVERTED, ..NCHW });
        assert_eq!(costs.way(&existing, NCHW), Way { cost: 1e9, from: NHWC, by: None });
    }

    #[test]
    fn each_form_is_paid_once() {
        let of = |has, forms: &[Form]| costs().of(has, &wanted(forms));
        assert_eq!(of(Layout::Nhwc, &[]), 0.0);
        assert_eq!(of(Layout::Nhwc, &[NHWC]), 0.0);
        assert_eq!(of(Layout::Nhwc, &[NHWC, NCHW, LANES]), 11.0);
        assert_eq!(of(Layout::Nhwc16n, &[NHWC, NCHW]), 11.0);
        // What the bytes are made by is there for whoever wants it.
        assert_eq!(of(Layout::Nhwc16n, &[BYTES]), 15.0);
        assert_eq!(of(Layout::Nhwc16n, &[BYTES, NHWC]), 15.0);
    }

    #[test]
    fn what_is_the_same_bytes_is_moved_for_nothing() {
        let pixel = TensorCosts::unknown(TensorSpec::f32(16, [8, 1, 1], Layout::Nchw), 7.0);
        assert_eq!(pixel.of(Layout::Nchw, &wanted(&[NHWC])), 0.0);
        assert_eq!(pixel.of(Layout::Nchw, &wanted(&[NHWC, LANES])), 7.0);
        let element = TensorCosts::unknown(TensorSpec::f32(16, [1, 1, 1], Layout::Nchw), 7.0);
        assert_eq!(element.of(Layout::Nchw, &wanted(&[NHWC, LANES])), 0.0);
    }
}

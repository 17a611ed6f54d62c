//! Checks of a recipe's numbers, with errors that name the field.

use crate::CompressError;

/// Where in a recipe a check is made.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a> {
    recipe: &'a str,
    prefix: String,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(recipe: &'a str) -> Self {
        Self { recipe, prefix: String::new() }
    }

    pub(crate) fn within(&self, prefix: impl AsRef<str>) -> Self {
        Self { recipe: self.recipe, prefix: format!("{}{}", self.prefix, prefix.as_ref()) }
    }

    pub(crate) fn error(&self, field: &str, problem: String) -> CompressError {
        CompressError::Recipe { recipe: self.recipe.to_owned(), field: format!("{}{field}", self.prefix), problem }
    }

    /// A finite number within closed bounds.
    pub(crate) fn range(&self, field: &str, value: f64, least: f64, most: f64) -> Result<(), CompressError> {
        if value >= least && value <= most {
            return Ok(());
        }
        Err(self.error(field, format!("{value}: expected {least} to {most}")))
    }

    pub(crate) fn count(&self, field: &str, value: usize, least: usize, most: usize) -> Result<(), CompressError> {
        if (least..=most).contains(&value) {
            return Ok(());
        }
        Err(self.error(field, format!("{value}: expected {least} to {most}")))
    }
}

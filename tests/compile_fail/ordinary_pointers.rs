//! Ordinary pointers are put into unified memory.
//! expect: E0277

use limosa::{Context, Result};

fn main() -> Result<()> {
    let number = 1u32;
    let context = Context::new()?;
    context.heap().vec_from(&[&raw const number])?;
    Ok(())
}

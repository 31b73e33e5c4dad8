//! runtime/pager

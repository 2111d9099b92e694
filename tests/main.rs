//! The whole product over the stand-ins, called as its clients call it.

mod tidy;

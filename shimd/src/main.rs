//! The daemon's entry point.

fn main() {
    if std::env::args_os().nth(1).is_some_and(|a| a == "__exec") {
        shimd::sys::exec::trampoline();
    }
}

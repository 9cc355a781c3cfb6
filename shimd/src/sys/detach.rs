//! Leaving the process that started the daemon: `nu -c … | cat` must not wait for it.

#![allow(unsafe_code)] // close_range has no wrapper in nix

use nix::errno::Errno;

/// A session of its own, the root folder, and no descriptor beyond the standard three.
pub fn detach() -> Result<(), Errno> {
    match nix::unistd::setsid() {
        // Leads its process group already: started by hand, from a shell.
        Ok(_) | Err(Errno::EPERM) => {}
        Err(e) => return Err(e),
    }
    nix::unistd::chdir("/")?;
    // SAFETY: nothing in this process has opened a descriptor yet; the call touches no memory.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) }).map(drop)
}

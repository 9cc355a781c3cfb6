//! A terminal of a certain size, as a user has one: keys go in, and the screen is what a terminal would show.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::pty::{Winsize, openpty};
use nix::sys::termios::{LocalFlags, tcgetattr};

use crate::fault::Context;
use crate::{Fault, Result, World, wait_until};

const SOON: Duration = Duration::from_secs(20);

/// A terminal and the program in it.
pub struct Terminal {
    master: File,
    slave: OwnedFd,
    child: Child,
    parser: Arc<Mutex<vt100::Parser>>,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Runs a command in a terminal of its own, which is the controlling one of its session.
    ///
    /// # Errors
    /// A size of 0; what the system refuses.
    pub fn run(world: &World, command: &Command, rows: u16, columns: u16) -> Result<Terminal> {
        let sizes = (NonZero::new(rows).context("no rows")?, NonZero::new(columns).context("no columns")?);
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None)?;
        // setsid(1) takes the terminal on its stdin as its own.
        let mut inside = world.command("setsid");
        inside.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        inside.env_clear();
        inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        inside.env("TERM", "xterm-256color");
        inside.stdin(pty.slave.try_clone()?).stdout(pty.slave.try_clone()?).stderr(pty.slave.try_clone()?);
        let child = inside.spawn().context("cannot start setsid")?;
        let parser = Arc::new(Mutex::new(vt100::Parser::new(sizes.0, sizes.1, 0)));
        let written = Arc::new(Mutex::new(Vec::new()));
        let kept = written.clone();
        let (shown, mut output) = (parser.clone(), File::from(pty.master.try_clone()?));
        let mut answers = output.try_clone()?;
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // It fails once nobody has the other side open.
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                let bytes = bytes.get(..count).unwrap_or_default();
                kept.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
                let mut parser = locked(&shown);
                parser.process(bytes);
                // "Where is the cursor?": a line editor waits for the answer.
                for _ in bytes.windows(4).filter(|asked| asked == b"\x1b[6n") {
                    let (row, column) = parser.screen().cursor_position();
                    // In one piece: keys that are pressed meanwhile may not come in between.
                    let answer = format!("\x1b[{};{}R", row + 1, column + 1);
                    let _ = answers.write_all(answer.as_bytes());
                }
            }
        });
        Ok(Terminal { master: File::from(pty.master), slave: pty.slave, child, parser, written })
    }

    /// Runs a script in Nushell, with the plugin.
    ///
    /// # Errors
    /// As [`Terminal::run`].
    pub fn nu(world: &World, script: &str, rows: u16, columns: u16) -> Result<Terminal> {
        Terminal::run(world, &world.nu_command(script)?, rows, columns)
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) -> Result {
        Ok(self.master.write_all(keys.as_bytes())?)
    }

    /// Makes it of another size: the program in it is told.
    ///
    /// # Errors
    /// A size of 0; no stty(1).
    pub fn resize(&self, world: &World, rows: u16, columns: u16) -> Result {
        let sizes = (NonZero::new(rows).context("no rows")?, NonZero::new(columns).context("no columns")?);
        // The screen first: what the program draws for the new size is not to meet the old one.
        locked(&self.parser).screen_mut().set_size(sizes.0, sizes.1);
        let mut stty = world.command("stty");
        stty.args(["rows", &rows.to_string(), "cols", &columns.to_string()]);
        let status = stty.stdin(self.slave.try_clone()?).status().context("cannot start stty")?;
        crate::ensure!(status.success(), "stty: {status}");
        Ok(())
    }

    /// What is on the screen.
    pub fn screen(&self) -> String {
        locked(&self.parser).screen().contents()
    }

    /// All that was ever written to it, escape sequences included.
    pub fn written(&self) -> String {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&written).into_owned()
    }

    /// The colour that a text on the screen begins in, in the words of the vt100 crate: `Default`, `Idx(1)` for red.
    pub fn colour_of(&self, text: &str) -> Result<String> {
        let parser = locked(&self.parser);
        let screen = parser.screen();
        let columns = screen.size().1;
        for (row, line) in (0u16..).zip(screen.rows(0, columns.get())) {
            let Some((before, _)) = line.split_once(text) else { continue };
            let column = u16::try_from(before.chars().count())?;
            let cell = screen.cell(row, column).context("no such cell")?;
            return Ok(format!("{:?}", cell.fgcolor()));
        }
        Err(Fault(format!("no {text} on the screen:\n{}", screen.contents())))
    }

    /// Waits until the screen is as wished.
    pub fn wait(&self, what: &str, wished: impl Fn(&str) -> bool) -> Result<String> {
        let waited =
            wait_until(SOON, what.to_owned(), || Some(self.screen()).filter(|screen| wished(screen)));
        waited.map_err(|fault| Fault(format!("{fault}; the screen:\n{}", self.screen())))
    }

    /// Waits for the end of the program.
    pub fn ended(&mut self) -> Result<ExitStatus> {
        let mut ended = None;
        let waited = wait_until(SOON, "the program ends", || {
            ended = self.child.try_wait().ok().flatten();
            ended.is_some()
        });
        waited.map_err(|fault| Fault(format!("{fault}; the screen:\n{}", self.screen())))?;
        ended.context("no status")
    }

    /// Whether it comes to be as a shell wants it: lines and echo, the plain screen, a cursor. What the program wrote last
    /// may still be on its way here.
    pub fn is_clean(&self) -> Result<bool> {
        let clean = wait_until(SOON, "the terminal is as it was", || self.is_plain().unwrap_or_default());
        Ok(clean.is_ok())
    }

    fn is_plain(&self) -> Result<bool> {
        let modes = tcgetattr(self.slave.as_fd())?.local_flags;
        let parser = locked(&self.parser);
        let screen = parser.screen();
        Ok(modes.contains(LocalFlags::ICANON | LocalFlags::ECHO)
            && !screen.alternate_screen()
            && !screen.hide_cursor())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn locked(parser: &Mutex<vt100::Parser>) -> MutexGuard<'_, vt100::Parser> {
    parser.lock().unwrap_or_else(PoisonError::into_inner)
}

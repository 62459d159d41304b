//! Ends a process with ours, however ours ends.
//!
//! Destructors do not run for statics, nor in a process that is killed, and a signal at the parent's
//! death comes with the end of the thread that started the child, which a test's does early. So a
//! shell waits at a pipe whose other end is ours alone, and kills when that is closed.

use std::io;
use std::process::{Child, Command, Stdio};

/// Held by whoever started a process. The process ends with this one; dropping the leash lets it go.
pub(crate) struct Leash(Child);

impl Leash {
    /// Ties a process to this one.
    pub(crate) fn tie(pid: u32) -> io::Result<Self> {
        Command::new("sh")
            // A terminal's signals are for all its processes; this one must outlive the others.
            .args(["-c", "trap '' INT TERM HUP; read -r _; kill -9 \"$0\""])
            .arg(pid.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map(Self)
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        // Before its pipe is closed, for the number may be another process's by now.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// Set in the process that starts another and ends without a destructor.
    const OWNER: &str = "WASMHOOK_TEST_LEASH_OWNER";

    fn sleep() -> Child {
        // It keeps the standard output of who started it open for as long as it runs.
        Command::new("sleep").arg("600").spawn().unwrap()
    }

    #[test]
    fn a_process_ends_with_the_one_that_holds_its_leash() {
        if std::env::var_os(OWNER).is_some() {
            std::mem::forget(Leash::tie(sleep().id()).unwrap());
            std::process::exit(0);
        }
        let mut owner = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("leash::tests::a_process_ends_with_the_one_that_holds_its_leash")
            .env(OWNER, "yes")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = owner.stdout.take().unwrap();
        let (ended, end) = mpsc::channel();
        std::thread::spawn(move || ended.send(output.read_to_end(&mut Vec::new())));
        end.recv_timeout(Duration::from_secs(60))
            .expect("the process outlives its owner")
            .unwrap();
        assert!(owner.wait().unwrap().success());
    }

    #[test]
    fn who_is_let_go_runs_on() {
        let mut process = sleep();
        drop(Leash::tie(process.id()).unwrap());
        assert!(process.try_wait().unwrap().is_none());
        process.kill().unwrap();
        process.wait().unwrap();
    }
}

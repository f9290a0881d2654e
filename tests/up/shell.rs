//! A shell to try daemons in.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use tempfile::TempDir;

const PUNCHLAN: &str = env!("CARGO_BIN_EXE_punchlan");

/// A shell in a network namespace and a folder of its own. Whatever it started ends with it.
pub(crate) struct Shell {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    pub(crate) folder: TempDir,
}

impl Shell {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("punchlan-up-").tempdir().expect("a folder");
        let mut command = Command::new("unshare");
        command.args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash"]).current_dir(folder.path());
        command.env("PUNCHLAN_STATE", folder.path().join("state")).env("PUNCHLAN_RUN", folder.path().join("run"));
        command.env("PUNCHLAN_HOSTS", folder.path().join("hosts")).env_remove("PUNCHLAN_LOG").env("P", PUNCHLAN);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a namespace");
        let stdin = child.stdin.take().expect("piped");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut shell = Self { child, stdin, stdout, folder };
        shell.ok("ip link set lo up; punchlan() { \"$P\" \"$@\"; }");
        shell
    }

    /// Runs a line in the shell itself; its exit code, stdout and stderr.
    fn run(&mut self, line: &str) -> (i32, String, String) {
        writeln!(self.stdin, "{{ {line}\n}} >out 2>err; echo $?").expect("the shell listens");
        let mut code = String::new();
        self.stdout.read_line(&mut code).expect("the shell speaks");
        let read = |name| fs::read_to_string(self.folder.path().join(name)).expect("text");
        (code.trim().parse().unwrap_or(-1), read("out"), read("err"))
    }

    pub(crate) fn ok(&mut self, line: &str) -> String {
        let (code, out, err) = self.run(line);
        assert_eq!(code, 0, "{line}: {out}{err}");
        out
    }

    /// What it says on stderr; stdout must be empty.
    pub(crate) fn fails(&mut self, line: &str, expected: i32) -> String {
        let (code, out, err) = self.run(line);
        assert_eq!((code, out.as_str()), (expected, ""), "{line}: {err}");
        err
    }

    /// Starts a daemon, whose process is then `$up`, and waits for its line.
    pub(crate) fn up(&mut self, line: &str) {
        let (program, arguments) = line.split_once(' ').expect("punchlan up");
        assert_eq!(program, "punchlan");
        let wait = "for i in $(seq 200); do [ -s up.out ] && break; sleep 0.02; done; [ -s up.out ]";
        let (code, _, _) = self.run(&format!("rm -f up.out; \"$P\" {arguments} >up.out 2>up.err & up=$!; {wait}"));
        assert_eq!(code, 0, "{}", fs::read_to_string(self.folder.path().join("up.err")).expect("text"));
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

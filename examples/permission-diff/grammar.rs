//! Random shell commands: half of them harmless, the rest nearly so.

use fastrand::Rng;

const LOOKS: [&str; 24] = [
    "ls", "cat", "head", "tail", "grep", "rg", "wc", "diff", "cut", "tr", "stat", "file", "du",
    "echo", "printf", "pwd", "whoami", "date", "which", "basename", "realpath", "jq", "sort",
    "find",
];
const ACTS: [&str; 18] = [
    "rm", "mv", "touch", "make", "npm", "python3", "node", "curl", "sudo", "tee", "xargs", "awk",
    "dd", "chmod", "ssh", "perl", "cp", "./run.sh",
];
const GIT: [&str; 22] = [
    "status",
    "diff",
    "log --oneline",
    "show HEAD",
    "branch",
    "branch -a",
    "branch -D x",
    "branch new",
    "tag",
    "tag v1",
    "remote -v",
    "remote add o u",
    "push",
    "commit -m x",
    "grep x",
    "grep -O x",
    "rev-parse HEAD",
    "ls-files",
    "-C sub status",
    "-C /etc status",
    "-c a=b log",
    "diff --ext-diff",
];
const GH: [&str; 9] = [
    "pr list",
    "pr view 1",
    "pr create",
    "issue list",
    "api repos",
    "api -X POST repos",
    "api repos -f a=b",
    "run watch 1",
    "search code x",
];
const FLAGS: [&str; 26] = [
    "-l",
    "-la",
    "-n",
    "-r",
    "-i",
    "-e",
    "-c",
    "-o",
    "-f",
    "-v",
    "-z",
    "--all",
    "--pre=x",
    "--output=x",
    "-exec",
    "-delete",
    "-print",
    "-oF",
    "--files0-from=x",
    "-s",
    "--help",
    "-d",
    "-name",
    "-C",
    "-E",
    "-p",
];
const PATHS: [&str; 24] = [
    "a.txt",
    "src",
    "./b",
    "src/a.rs",
    "../x",
    "sub/../../x",
    "/srv/app/a",
    "/srv/app",
    "/etc/passwd",
    "/",
    "~",
    "~/x",
    "$HOME/x",
    "\"$HOME\"/x",
    "${HOME}",
    "$x",
    "*.rs",
    "[ab]",
    "{a,b}",
    ".",
    "..",
    "-",
    "a b",
    "/srv/application/x",
];
const ENDS: [&str; 14] = [
    "> /dev/null",
    "2>&1",
    "2>/dev/null",
    "> out",
    ">> out",
    "< in",
    "< /etc/passwd",
    "&> /dev/null",
    "<<< x",
    "&",
    "# note",
    "\\",
    ">&2",
    "1>/dev/null 2>&1",
];
const JOINS: [&str; 8] = [" && ", " || ", "; ", " | ", "\n", " & ", ";", "|"];

fn pick<'a>(random: &mut Rng, list: &[&'a str]) -> &'a str {
    list[random.usize(..list.len())]
}

/// One command line.
pub(crate) fn command(random: &mut Rng) -> String {
    let mut line = segment(random, 0);
    while random.u8(..) < 70 {
        line.push_str(pick(random, &JOINS));
        line.push_str(&segment(random, 0));
    }
    line
}

fn segment(random: &mut Rng, depth: u8) -> String {
    let simple = |random: &mut Rng| simple(random);
    if depth > 2 {
        return simple(random);
    }
    match random.u8(..40) {
        0 => format!("bash -c '{}'", segment(random, depth + 1).replace('\'', "")),
        1 => format!("sh -lc \"{}\"", segment(random, depth + 1).replace('"', "")),
        2 => format!("env A=1 {}", segment(random, depth + 1)),
        3 => format!("for f in a b; do {} $f; done", segment(random, depth + 1)),
        4 => format!("if [ -f a.txt ]; then {}; fi", segment(random, depth + 1)),
        5 => format!("echo $({})", segment(random, depth + 1)),
        6 => format!("echo `{}`", segment(random, depth + 1)),
        7 => format!("({})", segment(random, depth + 1)),
        8 => format!("{{ {}; }}", segment(random, depth + 1)),
        9 => format!("diff <({}) a.txt", segment(random, depth + 1)),
        10 => format!("A=1 {}", segment(random, depth + 1)),
        11 => format!("! {}", segment(random, depth + 1)),
        12 => format!("cd {} && {}", quoted(random), segment(random, depth + 1)),
        13 => format!("time {}", segment(random, depth + 1)),
        14 => format!("cat <<EOF\n{}\nEOF", segment(random, depth + 1)),
        15 => format!("while true; do {}; done", segment(random, depth + 1)),
        _ => simple(random),
    }
}

fn simple(random: &mut Rng) -> String {
    let mut line = match random.u8(..20) {
        0..=2 => format!("git {}", pick(random, &GIT)),
        3 => format!("gh {}", pick(random, &GH)),
        4 => format!(
            "sed {} s/a/b/{} ",
            pick(random, &["-n", "-i", "-e", "-E", "-Ei", "--in-place"]),
            pick(random, &["", "g", "w out", "e"])
        ),
        5 => format!(
            "find . {}",
            pick(
                random,
                &[
                    "-name '*.rs'",
                    "-delete",
                    "-exec stat {} \\;",
                    "-exec rm {} \\;",
                    "-type f",
                    "-fprint x",
                    "-ok rm {} \\;"
                ]
            )
        ),
        6 => format!(
            "sort {} a.txt",
            pick(random, &["-n", "-o x", "-ox", "-uo x", "--output=x", "-u"])
        ),
        7 | 8 => pick(random, &ACTS).to_owned(),
        _ => pick(random, &LOOKS).to_owned(),
    };
    if random.u8(..) < 20 {
        let name = line.split(' ').next().unwrap_or_default().to_owned();
        let dressed = match random.u8(..5) {
            0 => format!("\"{name}\""),
            1 => format!("'{name}'"),
            2 => format!("\\{name}"),
            3 => format!("/bin/{name}"),
            _ => format!("{name}''"),
        };
        line = line.replacen(&name, &dressed, 1);
    }
    for _ in 0..random.u8(..3) {
        line.push(' ');
        match random.u8(..5) {
            0 | 1 => line.push_str(pick(random, &FLAGS)),
            _ => line.push_str(&quoted(random)),
        }
    }
    if random.u8(..) < 50 {
        line.push(' ');
        line.push_str(pick(random, &ENDS));
    }
    line
}

fn quoted(random: &mut Rng) -> String {
    let path = pick(random, &PATHS);
    match random.u8(..6) {
        0 => format!("'{path}'"),
        1 => format!("\"{path}\""),
        _ => path.to_owned(),
    }
}

use super::super::context::{Disk, LexicalDisk};
use super::*;

fn looks(text: &str) -> bool {
    let context = Context::new("/srv/app", "/home/tester", &LexicalDisk);
    ShellView::new(Some(Command::Text(text)), &context, &[]).is_read_only()
}

#[test]
fn commands_that_look_pass_in_every_harmless_spelling() {
    for text in [
        "ls",
        "  ls   -la  ",
        "ls # comment",
        "git log --oneline | head -5",
        "cat $HOME/../../srv/app/a",
        "sort -k2,2n a | head || true",
        "grep -rn 'a b' src && wc -l < a.txt",
    ] {
        assert!(looks(text), "{text}");
    }
}

#[test]
fn arguments_that_write_set_or_run_do_not_pass() {
    for text in [
        "sort --out=x a",
        "sort --comp=rm a",
        "tree -o x",
        "yq -i . a",
        "yq 'load(\"/x\")' a",
        "xxd a b",
        "date 01020304",
        "hostname x",
        "printf -v PATH x",
        "less +!id a",
        "git tag v1",
        "git remote add x y",
        "git diff --ext-diff",
        "git diff --outp=x",
        "git cat-file --filters HEAD:a",
        "gh api -iXDELETE x",
        "gh pr view --web",
        "sed --in-place=.b p a",
        "sed 'w x' a",
        "sed -f s a",
        "find . -fprintf x y",
        "find *",
        "sort *",
        "bash x.sh -c ls",
        "bash --rcfile x -ic ls",
        "bash -c \"ls; rm x\"",
        "env PATH=. ls",
        "env -S 'rm x'",
        "for PATH in .; do ls; done",
        "cat -- /etc/passwd",
        "cat .*/x",
        "cd",
        "cd -",
        "cd ~",
        "grep -f/etc/shadow x",
        "grep --file=/etc/shadow x",
    ] {
        assert!(!looks(text), "{text}");
    }
}

#[test]
fn a_word_that_is_a_credential_is_not_read_only() {
    let mut context = Context::new("/home/tester", "/home/tester", &LexicalDisk);
    context.credentials = vec!["/home/tester/.letta/settings.json".into()];
    let looks = |text| ShellView::new(Some(Command::Text(text)), &context, &[]).is_read_only();
    for text in [
        "cat .letta/settings.json",
        "cat ~/.letta/settings.json",
        "cat .letta/*.json",
        "cat .letta/sett?ngs.json",
        "cd .letta && cat settings.json",
        "grep -r x .letta/s*",
        "grep --file=.letta/settings.json x",
    ] {
        assert!(!looks(text), "{text}");
    }
    assert!(looks("cat .letta/other.json") && looks("ls .letta"));
}

#[test]
fn loops_do_not_multiply_the_work() {
    let items = "a ".repeat(20_000);
    let body = "cat $f; ".repeat(4_000);
    let started = std::time::Instant::now();
    assert!(!looks(&format!("for f in {items}; do {body} done")));
    assert!(started.elapsed() < std::time::Duration::from_secs(5));
}

/// Everything below one directory leads to `/etc`.
struct Linked;

impl Disk for Linked {
    fn real_path(&self, path: &str) -> String {
        path.replace("/home/tester/.letta/agents/agent-1/memory/link", "/etc")
    }

    fn exists(&self, _: &str) -> bool {
        true
    }
}

#[test]
fn memory_commands_do_not_follow_links_out_of_memory() {
    let mut context = Context::new("/srv/app", "/home/tester", &Linked);
    context.agents.agent = Some("agent-1".into());
    context.variables.insert(
        "MEMORY_DIR".into(),
        "/home/tester/.letta/agents/agent-1/memory".into(),
    );
    let own = |text| ShellView::new(Some(Command::Text(text)), &context, &[]).is_own_memory();
    assert!(own(
        "cd \"$MEMORY_DIR\" && git add -A && git commit -m 'a; b'"
    ));
    assert!(own("cat > $MEMORY_DIR/a.md << 'EOF'\nsome $(text)\nEOF"));
    for text in [
        "cat $MEMORY_DIR/link/passwd",
        "cd $MEMORY_DIR/link && git add -A",
        "cd $MEMORY_DIR && cat link/passwd",
        "cat > $MEMORY_DIR/link/a << 'EOF'\nx\nEOF",
        "cd $OTHER && git add -A",
    ] {
        assert!(!own(text), "{text}");
    }
}

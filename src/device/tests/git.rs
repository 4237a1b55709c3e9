//! Branches of real repositories.

use super::*;
use crate::events::{Injected, Recipient};

fn repository(bench: &Bench) {
    bench.file("file", "text");
    let commit: &[&str] = &[
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@t",
        "commit",
        "-qm",
        "x",
    ];
    for args in [&["init", "-q", "-b", "main"][..], &["add", "."], commit] {
        bench.run("git", args);
    }
    // A remote with a branch of its own and a HEAD.
    for args in [
        &["init", "-q", "--bare", "-b", "main", "../remote"][..],
        &["remote", "add", "origin", "../remote"],
        &["push", "-q", "origin", "main", "main:far"],
        &["fetch", "-q"],
        &["remote", "set-head", "origin", "main"],
        &["branch", "feature"],
    ] {
        bench.run("git", args);
    }
}

#[tokio::test]
async fn branches_are_found_local_ones_first_and_no_symbolic_ones() {
    let mut bench = Bench::new().await;
    repository(&bench);
    let search = |query: &str| json!({"type": "search_branches", "query": query, "cwd": "<cwd>"});
    let root = bench.text("");
    let ask = |query| with_root(&search(query), "<cwd>", &root);
    let answer = bench.ask(ask("")).await;
    let branch = |name: &str, current, remote| json!({"name": name, "is_current": current, "is_remote": remote});
    assert_eq!(
        answer,
        json!({"type": "search_branches_response", "request_id": "r-1", "success": true, "branches": [
            branch("feature", false, false), branch("main", true, false),
            branch("origin/far", false, true), branch("origin/main", false, true),
        ]})
    );
    let answer = bench.ask(ask("MAIN")).await;
    assert_eq!(answer["branches"].as_array().unwrap().len(), 2);
    let mut one = ask("");
    one["max_results"] = json!(1);
    one.as_object_mut().unwrap().remove("cwd");
    // Without a directory it is the one where conversations start.
    let answer = bench.ask(one).await;
    assert_eq!(answer["branches"], json!([branch("feature", false, false)]));
    bench.run("git", &["checkout", "-q", "--detach"]);
    let answer = bench.ask(ask("detached")).await;
    assert_eq!(answer["branches"][0]["is_current"], true);
    let away = json!({"type": "search_branches", "query": "", "cwd": "/"});
    let answer = bench.ask(away).await;
    assert_eq!(
        (&answer["success"], &answer["branches"]),
        (&json!(false), &json!([]))
    );
    assert!(
        answer["error"]
            .as_str()
            .unwrap()
            .contains("not a git repository")
    );
}

#[tokio::test]
async fn a_branch_is_checked_out_and_conversations_hear_of_it() {
    let mut bench = Bench::new().await;
    repository(&bench);
    let root = bench.text("");
    let checkout = |branch: &str, create: bool| json!({"type": "checkout_branch", "branch": branch, "create": create, "cwd": root});
    // `far` is known as a branch of the remote alone.
    for (branch, create) in [("feature", false), ("far", false), ("new", true)] {
        let answer = bench.ask(checkout(branch, create)).await;
        assert_eq!(
            answer,
            json!({"type": "checkout_branch_response", "request_id": "r-1", "success": true, "branch": branch})
        );
        let told = bench.trial.injected.try_recv().unwrap();
        assert_eq!(told, (Recipient::Live, Injected::GitChanged));
    }
    assert_eq!(bench.run("git", &["branch", "--show-current"]), "new\n");
}

#[tokio::test]
async fn what_is_no_branch_is_refused_and_touches_nothing() {
    let mut bench = Bench::new().await;
    repository(&bench);
    bench.file("file", "changed");
    let root = bench.text("");
    let before = bench.run("git", &["for-each-ref"]);
    for (branch, create) in [
        ("file", false),
        ("", false),
        ("", true),
        ("-", false),
        ("--orphan=x", false),
        ("-f", false),
        ("--", false),
        ("-fd", true),
        ("a b", true),
        ("..", true),
        ("main", true),
        ("no-such-branch", false),
        ("--detach", true),
        ("main\0x", false),
    ] {
        let frame =
            json!({"type": "checkout_branch", "branch": branch, "create": create, "cwd": root});
        let answer = bench.ask(frame).await;
        assert_eq!(answer["success"], false, "{branch}");
        assert_eq!(answer["branch"], branch);
        assert_ne!(answer["error"], "", "{branch}");
    }
    assert_eq!(fs::read_to_string(bench.path("file")).unwrap(), "changed");
    assert_eq!(bench.run("git", &["branch", "--show-current"]), "main\n");
    assert_eq!(bench.run("git", &["for-each-ref"]), before);
    assert!(bench.trial.injected.try_recv().is_err());
}

//! Results on their way to the server: the items of an approval message
//! (04 §4.9, 03 §3.4) and what clients see of a denial.

use serde_json::{Value, json};

use super::tool::{ToolOutcome, ToolReturn};

/// The item for a call that ran. `comment` is what the approving human said.
pub fn executed(tool_call_id: &str, outcome: &ToolOutcome, comment: Option<&str>) -> Value {
    let comment = comment.filter(|comment| !comment.trim().is_empty());
    let mut item = json!({
        "type": "tool",
        "tool_call_id": tool_call_id,
        "tool_return": with_comment(&outcome.tool_return, comment),
        "status": outcome.status.as_str(),
    });
    for (name, lines) in [("stdout", &outcome.stdout), ("stderr", &outcome.stderr)] {
        if let Some(lines) = lines {
            item[name] = json!(lines);
        }
    }
    if let Some(comment) = comment {
        item["reason"] = json!(comment);
    }
    item
}

/// The item for a call that must not run.
pub fn denied(tool_call_id: &str, reason: &str) -> Value {
    json!({"type": "approval", "tool_call_id": tool_call_id, "approve": false, "reason": reason})
}

/// The text-only view of a result.
pub fn text_view(tool_return: &ToolReturn) -> String {
    match tool_return {
        ToolReturn::Text(text) => text.clone(),
        ToolReturn::Parts(parts) => {
            let texts: Vec<&str> = parts
                .iter()
                .filter_map(|part| part["text"].as_str())
                .collect();
            texts.join("\n")
        }
    }
}

fn with_comment(tool_return: &ToolReturn, comment: Option<&str>) -> Value {
    let Some(comment) = comment else {
        return match tool_return {
            ToolReturn::Text(text) => json!(text),
            ToolReturn::Parts(parts) => json!(parts),
        };
    };
    let said =
        format!("The user approved the tool execution with the following comment: \"{comment}\"");
    let mut parts = vec![json!({"type": "text", "text": said})];
    match tool_return {
        ToolReturn::Text(text) if text.is_empty() => {}
        ToolReturn::Text(text) => parts.push(json!({"type": "text", "text": text})),
        ToolReturn::Parts(own) => parts.extend(own.iter().cloned()),
    }
    Value::Array(parts)
}

#[cfg(test)]
mod tests {
    use super::super::tool::Status;
    use super::*;

    #[test]
    fn an_executed_call_carries_its_return_and_lines() {
        let mut outcome = ToolOutcome::part("hi\n", Status::Success);
        assert_eq!(
            executed("c1", &outcome, None),
            json!({"type":"tool","tool_call_id":"c1","tool_return":[{"type":"text","text":"hi\n"}],"status":"success"})
        );
        outcome = ToolOutcome::error("no");
        outcome.stdout = Some(vec!["a".into()]);
        outcome.stderr = Some(vec![]);
        assert_eq!(
            executed("c2", &outcome, Some(" ")),
            json!({"type":"tool","tool_call_id":"c2","tool_return":"no","status":"error","stdout":["a"],"stderr":[]})
        );
    }

    #[test]
    fn a_comment_becomes_the_first_part() {
        let said = "The user approved the tool execution with the following comment: \"ok\"";
        let item = executed("c", &ToolOutcome::text("x"), Some("ok"));
        assert_eq!(
            item["tool_return"],
            json!([{"type":"text","text":said},{"type":"text","text":"x"}])
        );
        assert_eq!(item["reason"], "ok");
        let item = executed("c", &ToolOutcome::text(""), Some("ok"));
        assert_eq!(item["tool_return"], json!([{"type":"text","text":said}]));
    }

    #[test]
    fn a_denial_has_its_fixed_form() {
        assert_eq!(
            denied("c", "no"),
            json!({"type":"approval","tool_call_id":"c","approve":false,"reason":"no"})
        );
    }

    #[test]
    fn the_text_view_leaves_images_out() {
        let parts = ToolReturn::Parts(vec![
            json!({"type":"text","text":"a"}),
            json!({"type":"image"}),
            json!({"type":"text","text":"b"}),
        ]);
        assert_eq!(text_view(&parts), "a\nb");
    }
}

//! The graph of a saga as text that tools draw: Mermaid and DOT, with where each step stands.

use std::fmt::Write;
use std::sync::Arc;

use crate::definition::{Body, Definition, Kind, Spec};
use crate::status::{SagaView, StepStatus, StepView};

/// The graph of a definition, and of a saga if there is one.
///
/// ```
/// use std::sync::Arc;
/// use orchestra_saga::diagram::Diagram;
/// use orchestra_saga::{Call, Definition};
///
/// let mut d = Definition::builder("checkout", "1");
/// let order = d.input::<u32>();
/// let held = d.step("reserve", order, |_: Call, n: u32| async move { Ok(n) }).read_only();
/// d.step("charge", held, |_: Call, n: u32| async move { Ok(n) }).pivot();
/// let diagram = Diagram::of(Arc::new(d.build()?));
/// assert!(diagram.mermaid().contains("s0 --> s1"));
/// assert!(diagram.dot().starts_with("digraph \"checkout 1\" {"));
/// # Ok::<(), orchestra_saga::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Diagram {
    definition: Arc<Definition>,
    view: Option<SagaView>,
}

impl Diagram {
    /// The graph alone.
    pub fn of(definition: Arc<Definition>) -> Self {
        Self {
            definition,
            view: None,
        }
    }

    pub(crate) fn live(definition: Arc<Definition>, view: SagaView) -> Self {
        Self {
            definition,
            view: Some(view),
        }
    }

    fn status(&self, name: &str) -> Option<StepStatus> {
        let steps = self.view.iter().flat_map(|view| &view.steps);
        let mut named = steps.filter(|step| step.name.as_str() == name);
        named.next().map(|step| step.status)
    }

    /// What is written in a step: its name, and how it stands.
    fn lines(&self, spec: &Spec) -> Vec<String> {
        let steps = self.view.iter().flat_map(|view| &view.steps);
        let step = steps.into_iter().find(|step| step.name == spec.name);
        let mut lines = vec![spec.name.to_string()];
        if let Some(step) = step {
            let mut line = label(step).to_owned();
            let attempts = match step.compensation_attempts {
                0 => step.attempts,
                undoing => undoing,
            };
            if attempts > 1 {
                // Writing to a text does not fail.
                let _fits = write!(line, ", {attempts} attempts");
            }
            lines.push(line);
            lines.extend(step.reason.iter().map(|reason| shortened(reason)));
        }
        lines
    }

    fn edges(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let numbered = (0..).zip(&self.definition.steps);
        numbered.flat_map(|(to, spec)| spec.parents.iter().map(move |&from| (from, to)))
    }

    /// A Mermaid flowchart.
    pub fn mermaid(&self) -> String {
        let mut text = String::from("flowchart TD\n");
        for (number, spec) in self.definition.steps.iter().enumerate() {
            let lines = self.lines(spec);
            let lines: Vec<_> = lines.iter().map(|line| for_mermaid(line)).collect();
            let (open, close) = match (&spec.action, spec.kind) {
                (Body::Timer(_) | Body::Signal(..), _) => ("([", "])"),
                (_, Kind::Pivot) => ("{{", "}}"),
                _ => ("[", "]"),
            };
            let class = self.status(spec.name.as_str()).map(class);
            let class = class.map(|class| format!(":::{class}")).unwrap_or_default();
            let label = lines.join("<br/>");
            let _fits = writeln!(text, "    s{number}{open}\"{label}\"{close}{class}");
        }
        for (from, to) in self.edges() {
            let _fits = writeln!(text, "    s{from} --> s{to}");
        }
        if self.view.is_some() {
            for (class, colour) in CLASSES {
                let _fits = writeln!(text, "    classDef {class} fill:{colour}");
            }
        }
        text
    }

    /// A digraph in the DOT language of Graphviz.
    pub fn dot(&self) -> String {
        let definition = &self.definition;
        let title = for_dot(&format!("{} {}", definition.id(), definition.version()));
        let mut text =
            format!("digraph \"{title}\" {{\n    node [style=filled, fillcolor=white];\n");
        for (number, spec) in definition.steps.iter().enumerate() {
            let lines = self.lines(spec);
            let lines: Vec<_> = lines.iter().map(|line| for_dot(line)).collect();
            let shape = match (&spec.action, spec.kind) {
                (Body::Timer(_) | Body::Signal(..), _) => "ellipse",
                (_, Kind::Pivot) => "hexagon",
                _ => "box",
            };
            let colour = self.status(spec.name.as_str()).map(class);
            let colour = colour.and_then(|class| CLASSES.iter().find(|(name, _)| *name == class));
            let colour = colour.map(|(_, colour)| format!(", fillcolor=\"{colour}\""));
            let _fits = writeln!(
                text,
                "    s{number} [label=\"{}\", shape={shape}{}];",
                lines.join("\\n"),
                colour.unwrap_or_default()
            );
        }
        for (from, to) in self.edges() {
            let _fits = writeln!(text, "    s{from} -> s{to};");
        }
        text.push_str("}\n");
        text
    }
}

/// What steps of one colour have in common, and the colour.
const CLASSES: [(&str, &str); 6] = [
    ("waiting", "#ffffff"),
    ("active", "#fff2b3"),
    ("done", "#c8e6c9"),
    ("failed", "#ffcdd2"),
    ("stuck", "#ffb74d"),
    ("undone", "#d1c4e9"),
];

const fn class(status: StepStatus) -> &'static str {
    match status {
        StepStatus::Pending => "waiting",
        StepStatus::Running | StepStatus::Compensating => "active",
        StepStatus::Completed => "done",
        StepStatus::Failed | StepStatus::Unknown => "failed",
        StepStatus::Parked => "stuck",
        StepStatus::Compensated => "undone",
    }
}

fn label(step: &StepView) -> &'static str {
    match step.status {
        StepStatus::Pending => "pending",
        StepStatus::Running => "running",
        StepStatus::Parked if step.is_undoing() => "parked while compensating",
        StepStatus::Parked => "parked",
        StepStatus::Completed => "completed",
        StepStatus::Failed => "failed",
        StepStatus::Unknown => "unknown",
        StepStatus::Compensating => "compensating",
        StepStatus::Compensated => "compensated",
    }
}

fn shortened(reason: &str) -> String {
    const MOST: usize = 60;
    let mut short: String = reason.chars().take(MOST).collect();
    if short.len() < reason.len() {
        short.push('…');
    }
    short
}

/// In quotes nothing but these means anything; participants write reasons, so all of it is escaped.
fn for_mermaid(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '<' | '>' | '&' | '#' | ';' | '\\' | '`' => {
                let _fits = write!(escaped, "#{};", u32::from(character));
            }
            _ if character.is_control() => escaped.push(' '),
            _ => escaped.push(character),
        }
    }
    escaped
}

fn for_dot(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '\\' => escaped.extend(['\\', character]),
            _ if character.is_control() => escaped.push(' '),
            _ => escaped.push(character),
        }
    }
    escaped
}

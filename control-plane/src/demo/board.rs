//! Shows the demo while it runs: a table that is drawn again in a terminal,
//! plain lines elsewhere.
//!
//! Told by `demo` and its steps. Beside JSON on standard output the lines go to
//! standard error.

use std::{
    cell::{Cell, RefCell},
    fmt::Write as _,
    io::Write,
    path::Path,
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, interval},
};

use super::{caller::Reports, steps::Step, summary::Outcome};

/// How often the table is drawn again.
const REDRAW: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Table,
    Lines,
    /// Lines, on standard error.
    Aside,
}

#[derive(Debug)]
pub(crate) struct Board {
    mode: Mode,
    began: Instant,
    rows: RefCell<Vec<Row>>,
    load: RefCell<Option<watch::Receiver<Reports>>>,
    /// Of the table as it was drawn last.
    height: Cell<usize>,
    foot: RefCell<String>,
}

#[derive(Debug)]
struct Row {
    step: Step,
    state: State,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waits,
    Runs(Instant),
    Ok,
    Wrong,
}

impl Board {
    pub(crate) fn new(mode: Mode) -> Self {
        let row = |step| Row {
            step,
            state: State::Waits,
            text: String::new(),
        };
        Self {
            mode,
            began: Instant::now(),
            rows: RefCell::new(Step::ALL.map(row).into()),
            load: RefCell::new(None),
            height: Cell::new(0),
            foot: RefCell::default(),
        }
    }

    pub(crate) fn begin(&self, step: Step) {
        self.set(step, State::Runs(Instant::now()), "");
        self.line(&format!("{}: {}", step.name(), step.title()));
        self.draw();
    }

    /// What happens in the step that runs.
    pub(crate) fn say(&self, what: &str) {
        for row in self.rows.borrow_mut().iter_mut() {
            if matches!(row.state, State::Runs(_)) {
                what.clone_into(&mut row.text);
            }
        }
        self.line(&format!("    {what}"));
        self.draw();
    }

    pub(crate) fn finish(&self, step: Step, outcome: &Outcome) {
        let (state, word) = match outcome.ok {
            true => (State::Ok, "ok"),
            false => (State::Wrong, "WRONG"),
        };
        let text = match outcome.ok {
            true => outcome.told.clone(),
            false => outcome.wrong.join("; "),
        };
        self.set(step, state, &text);
        self.line(&format!("  {word} ({:.1} s): {text}", outcome.seconds));
        self.draw();
    }

    /// Whose calls are shown below the table.
    pub(crate) fn watch(&self, load: watch::Receiver<Reports>) {
        self.load.replace(Some(load));
    }

    pub(crate) fn hold(&self, directory: &Path) {
        let directory = directory.display();
        let program = std::env::current_exe().unwrap_or_else(|_| "weft".into());
        let text = format!(
            "the shop stays open; end it with Ctrl-C. In another shell:\n\
             \n  export PATH={}:$PATH MESH={directory}\
             \n  weft run --mesh $MESH --pod shop/shell-0 -- curl -i http://front.shop/catalog\
             \n  weft run --mesh $MESH --pod shop/shell-0 -- curl -i http://cart.shop/    # denied, and why\
             \n  touch $MESH/faults/stock-1    # a pod that fails; rm it again\
             \n  weft run --mesh $MESH --pod shop/shell-0 -- sh -c \
             'for i in $(seq 30); do curl -so /dev/null -w \"%{{http_code}} \" stock.shop; done'\
             \n  $EDITOR $MESH/manifests/canary.yaml    # in effect when written\
             \n  weft status --mesh $MESH\n",
            program.parent().unwrap_or_else(|| Path::new(".")).display(),
        );
        self.line(&text);
        self.foot.replace(text);
        self.draw();
    }

    pub(crate) fn closing(&self) {
        self.foot.replace("closing the shop\n".to_owned());
        self.line("closing the shop");
        self.draw();
    }

    pub(crate) fn end(&self) {
        self.foot.take();
        self.load.take();
        self.draw();
    }

    /// Never returns: keeps the table's times and counts current.
    pub(crate) async fn tick(&self) {
        let mut redraw = interval(REDRAW);
        loop {
            redraw.tick().await;
            self.draw();
        }
    }

    fn set(&self, step: Step, state: State, text: &str) {
        for row in self
            .rows
            .borrow_mut()
            .iter_mut()
            .filter(|row| row.step == step)
        {
            row.state = state;
            text.clone_into(&mut row.text);
        }
    }

    /// A terminal that has gone is noticed by its signal.
    fn line(&self, text: &str) {
        let _ = match self.mode {
            Mode::Table => Ok(()),
            Mode::Lines => writeln!(std::io::stdout(), "{text}"),
            Mode::Aside => writeln!(std::io::stderr(), "{text}"),
        };
    }

    fn draw(&self) {
        if self.mode != Mode::Table {
            return;
        }
        let table = self.table();
        // Lines that are too long are cut, not wrapped, so that their number
        // is known when it comes to go back.
        let mut text = String::from("\x1b[?7l");
        if self.height.get() > 0 {
            let _never_fails = write!(text, "\x1b[{}A", self.height.get());
        }
        for line in table.lines() {
            let _never_fails = writeln!(text, "\r\x1b[2K{line}");
        }
        text.push_str("\x1b[J\x1b[?7h");
        self.height.set(table.lines().count());
        let mut out = std::io::stdout();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    fn table(&self) -> String {
        let mut table = format!(
            "weft demo{:>58.1} s\n\n",
            self.began.elapsed().as_secs_f64()
        );
        for row in self.rows.borrow().iter() {
            let (mark, time) = match row.state {
                State::Waits => (" ", String::new()),
                State::Runs(since) => (
                    "\x1b[36m>\x1b[0m",
                    format!("{:.1} s", since.elapsed().as_secs_f64()),
                ),
                State::Ok => ("\x1b[32m✓\x1b[0m", String::new()),
                State::Wrong => ("\x1b[31m✗\x1b[0m", String::new()),
            };
            let _never_fails = writeln!(
                table,
                " {mark} {:<14}{:<50} {time}",
                row.step.name(),
                row.step.title()
            );
            if !row.text.is_empty() {
                let _never_fails = writeln!(table, "     \x1b[2m{}\x1b[0m", row.text);
            }
        }
        table.push('\n');
        if let Some(load) = &*self.load.borrow() {
            table.push_str(&load_line(&load.borrow()));
        }
        table.push_str(&self.foot.borrow());
        table
    }
}

fn load_line(reports: &Reports) -> String {
    let (mut rate, mut calls, mut failures) = (0, 0, 0);
    for report in reports.values() {
        calls += report.calls();
        failures += report.failures();
        if !report.ended {
            rate += report.last_second;
        }
    }
    format!("   calls {calls:>8}   {rate:>5}/s   failed, some on purpose {failures:>5}\n")
}

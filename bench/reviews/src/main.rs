//! What a review costs the webhook: reviews a second and CPU time for each, latency at a fixed rate, memory, and pods of 2.5 MB.
//! Wall-clock figures depend on what else the machine does; CPU time for each review does so much less, and is what to compare.

mod load;
mod pod;
mod webhook;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;

use self::load::{Load, Measured};
use self::webhook::Webhook;

/// Bytes of an ordinary review's pod, and of the largest one that is worth a thought.
const ORDINARY: usize = 10 * 1024;
const LARGE: usize = 2_500_000;

/// How many of these are sent one by one, and how long on all connections.
const LARGE_ONES: usize = 20;
const CROWD: Duration = Duration::from_secs(1);

/// Connections that are kept alive, as an API server keeps some.
const CONNECTIONS: usize = 8;

#[derive(Parser)]
#[command(about, version)]
struct Arguments {
    /// The webhook's release binary.
    #[arg(long)]
    webhook: PathBuf,
    /// How long each of the two phases with ordinary pods takes.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=120))]
    seconds: u64,
    /// Reviews a second in the phase that measures latency.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(&arguments))
}

async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let webhook = Webhook::start(&arguments.webhook).await?;
    let ordinary = pod::of_variables(ORDINARY, 60);
    let time = Duration::from_secs(arguments.seconds);
    say(&format!(
        "reviews (mutate) of a pod of {} bytes, {CONNECTIONS} kept-alive TLS connections; idle: {} KiB resident",
        ordinary.len(),
        webhook.memory()?.resident,
    ));
    // Connections, caches and the allocator settle.
    Load::new(&webhook, ordinary.clone())
        .at_most(time / 5)
        .await?;

    let busiest = measure(
        &webhook,
        Load::new(&webhook, ordinary.clone()).at_most(time),
    )
    .await?;
    busiest.say("as fast as it can");
    let paced = Load::new(&webhook, ordinary.clone()).paced(arguments.rate, time);
    let paced = measure(&webhook, paced).await?;
    paced.say(&format!("{} a second", arguments.rate));
    say(&format!(
        "  memory: {} KiB resident",
        webhook.memory()?.resident
    ));

    for (sort, review) in pod::of_every_sort(LARGE) {
        large(arguments, sort, review).await?;
    }
    Ok(())
}

/// Measures large pods one by one and all connections at a time, each with a process of its own, whose memory shows what they take.
async fn large(arguments: &Arguments, sort: &str, review: Bytes) -> anyhow::Result<()> {
    for (how, is_crowd) in [("one by one", false), ("at a time", true)] {
        let webhook = Webhook::start(&arguments.webhook).await?;
        let load = Load::new(&webhook, review.clone());
        let phase = match is_crowd {
            false => measure(&webhook, load.one_by_one(LARGE_ONES)).await?,
            true => measure(&webhook, load.at_most(CROWD)).await?,
        };
        phase.say(&format!("pods of 2.5 MB in {sort}, {how}"));
        let memory = webhook.memory()?;
        say(&format!(
            "  memory: {} KiB at its highest, {} KiB afterwards",
            memory.highest, memory.resident
        ));
    }
    Ok(())
}

/// A phase, with the CPU time that the webhook took for it.
struct Phase {
    measured: Measured,
    cpu: Duration,
}

async fn measure(
    webhook: &Webhook,
    load: impl Future<Output = anyhow::Result<Measured>>,
) -> anyhow::Result<Phase> {
    let before = webhook.cpu()?;
    let measured = load.await?;
    let cpu = webhook.cpu()?.saturating_sub(before);
    Ok(Phase { measured, cpu })
}

impl Phase {
    fn say(&self, what: &str) {
        let Measured { latencies, wall } = &self.measured;
        let count = u32::try_from(latencies.len()).unwrap_or(u32::MAX).max(1);
        let each = self.cpu / count;
        let a_core = 1.0 / each.as_secs_f64();
        let at = |share: f64| self.measured.quantile(share).as_secs_f64() * 1000.0;
        say(&format!(
            "{what}: {count} reviews, {:.0} a second; {} us of CPU each, so {a_core:.0} a second on one core\n  \
             latency in ms: median {:.2}, 99 % {:.2}, most {:.2}",
            f64::from(count) / wall.as_secs_f64(),
            each.as_micros(),
            at(0.5),
            at(0.99),
            at(1.0),
        ));
    }
}

#[expect(clippy::print_stdout, reason = "this is what the program is for")]
fn say(line: &str) {
    println!("{line}");
}

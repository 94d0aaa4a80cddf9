// A job type for Flamenco 3: renders the datasets of a preset in shards, then completes, checks and reports them.
// Put this file into the folder `scripts` beside the Flamenco Manager and choose "Refresh job types"; docs/farms.md.

const JOB_TYPE = {
    label: "MegaSynth-Attr datasets",
    description: "Render isolated-variation datasets in shards, then complete, check and report them",
    settings: [
        {
            key: "preset", type: "string", required: true, default: "demo",
            description: "A preset of MegaSynth-Attr, or the absolute path of a YAML file that every worker can read",
        },
        {
            key: "out", type: "string", subtype: "dir_path", required: true,
            description: "Output folder: an absolute path, or one that begins with a Flamenco variable, that all workers share",
        },
        {
            key: "shards", type: "int32", default: 16, propargs: {min: 1, max: 10000}, visible: "submission",
            description: "Number of tasks that share the scenes",
        },
        {
            key: "words", type: "string", default: "",
            description: "Further words as for python -m megasynth_attr.pipeline, e.g. frames=4 camera.fov_x_deg=[30,50]; "
                + "quotes work as in a shell",
        },
        {
            key: "python", type: "string", default: "python3",
            description: "The Python that has MegaSynth-Attr installed; may be a Flamenco variable such as {python}",
        },
    ],
};

// What the tasks give themselves; the same words typed by people would contradict them.
const OWN_KEYS = ["preset", "out", "shard", "stages", "from", "from_stage", "executor", "detach", "plan"];

function compileJob(job) {
    const settings = job.settings;
    if (!/^([/{]|[A-Za-z]:[\\/])/.test(settings.out)) {
        throw new Error(`out=${settings.out}: give an absolute path, or one that begins with a Flamenco variable`);
    }
    if (/\.ya?ml$/.test(settings.preset) && !/^([/{]|[A-Za-z]:[\\/])/.test(settings.preset)) {
        throw new Error(`preset=${settings.preset}: give the absolute path of this file`);
    }
    if (!(settings.shards >= 1)) {
        throw new Error(`shards=${settings.shards}: give 1 or more`);
    }
    const words = splitWords(settings.words || "");
    for (const word of words) {
        const key = word.replace(/^--/, "").split("=")[0];
        if (word.indexOf("=") < 1 || OWN_KEYS.indexOf(key) >= 0) {
            throw new Error(`words: ${word} is not of the form key=value, or is set by the job itself; leave it out`);
        }
    }
    const common = [`preset=${settings.preset}`].concat(words, [`out=${settings.out}`, "executor=local"]);
    const finish = author.Task("complete, check and report", "misc");
    for (let shard = 1; shard <= settings.shards; shard++) {
        const task = author.Task(`render shard ${shard}/${settings.shards}`, "blender");
        task.addCommand(pipeline(settings, common.concat(["stages=generate", `shard=${shard}/${settings.shards}`])));
        job.addTask(task);
        finish.addDependency(task);
    }
    finish.addCommand(pipeline(settings, common.concat(["stages=generate,verify,report"])));
    job.addTask(finish);
}

function pipeline(settings, words) {
    return author.Command("exec", {exe: settings.python, args: ["-m", "megasynth_attr.pipeline"].concat(words)});
}

// Returns the words of a text, with quotes and backslashes read as a shell reads them.
function splitWords(text) {
    const words = [];
    let word = null;
    let quote = "";
    for (let i = 0; i < text.length; i++) {
        const letter = text[i];
        if (letter === "\\" && quote !== "'" && i + 1 < text.length) {
            i += 1;
            const kept = quote === '"' && text[i] !== '"' && text[i] !== "\\" ? "\\" : "";
            word = (word || "") + kept + text[i];
        } else if (quote ? letter === quote : letter === "'" || letter === '"') {
            quote = quote ? "" : letter;
            word = word || "";
        } else if (!quote && /\s/.test(letter)) {
            if (word !== null) {
                words.push(word);
            }
            word = null;
        } else {
            word = (word || "") + letter;
        }
    }
    if (quote) {
        throw new Error(`words: a quotation mark ${quote} is not closed in ${text}`);
    }
    return word === null ? words : words.concat([word]);
}

// What Flamenco offers to job types, as far as ours uses it: node flamenco.js SCRIPT SETTINGS prints what was authored.
// SETTINGS is JSON; keys that are missing get their defaults, as in Flamenco. An error is printed alone.

const fs = require("fs");
const vm = require("vm");

const TYPES = ["string", "int32", "float", "bool"];
const SUBTYPES = ["file_path", "dir_path", "file_name", "hashed_file_path"];
const SETTING_KEYS = [
    "key", "type", "subtype", "choices", "propargs", "description", "label", "default", "eval", "evalInfo", "visible",
    "required", "editable",
];

const author = {
    Task: (name, type) => ({
        name, type, commands: [], dependencies: [],
        addCommand(command) { this.commands.push(command); },
        addDependency(task) { this.dependencies.push(task.name); },
    }),
    Command: (name, parameters) => ({name, parameters}),
};
const [script, given] = process.argv.slice(2);
const sandbox = vm.createContext({author, print: (...words) => console.error(...words)});
vm.runInContext(fs.readFileSync(script, "utf8") + "\nthis.JOB_TYPE = JOB_TYPE;", sandbox);
for (const setting of sandbox.JOB_TYPE.settings) {
    const unknown = Object.keys(setting).filter((key) => !SETTING_KEYS.includes(key));
    if (unknown.length || !TYPES.includes(setting.type) || (setting.subtype && !SUBTYPES.includes(setting.subtype))) {
        throw new Error(`Flamenco knows no such setting: ${JSON.stringify(setting)}`);
    }
}
const defaults = sandbox.JOB_TYPE.settings.map((one) => [one.key, one.default]);
const tasks = [];
const job = {
    settings: Object.assign(Object.fromEntries(defaults), JSON.parse(given)),
    addTask: (task) => tasks.push(task),
};
try {
    sandbox.compileJob(job);
    console.log(JSON.stringify({label: sandbox.JOB_TYPE.label, tasks}));
} catch (error) {
    console.log(JSON.stringify({error: error.message}));
}

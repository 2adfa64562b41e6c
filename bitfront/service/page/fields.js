// The fields of the forms, under the names that the API has them by (docs/openapi.json).

const SCHEMES = { name: "schemes", label: "Schemes", required: true, value: "w2g32 w3g32 w4g32 w8g32", hint: "What each layer may become, with spaces between: w4, w4g128, w8a8, w3g64+gptq, fp8, keep." };
const TARGETS = { name: "choices.targets", label: "Targets", list: true, hint: "What the models run on: ort-cpu:b1t1 times layers there, with budgets like 60%@ort-cpu:b1t1; llama.cpp bars what it cannot run." };
const BUDGETS = { name: "budgets", label: "Budgets", list: true, hint: "Upper limits, with spaces between: 3bpw 40% 700MB. Of one resource a sweep, of several together." };
const SOLVER = { name: "solver", label: "Solver", short: true, options: ["ilp", "lagrange", "quadratic", "greedy", "greedy-up", "uniform", "random"] };
const PROFILER = { name: "profiler.name", label: "Profiler", short: true, options: ["fisher", "perturb", "mse", "hutchinson", "eigen", "lrp", "decoupled", "imported"], hint: "What estimates the sensitivities (docs/profilers.md)." };
const MORE = { name: "", label: "More arguments", json: true, hint: 'As JSON, merged with the fields above: {"choices": {"exclude": ["lm_head"]}, "profiler": {"settings": {}}}.' };

/** kind of job -> its fields */
export const FIELDS = {
  search: [{ ...SCHEMES, required: false, hint: `${SCHEMES.hint} Empty: the targets’ own.` }, TARGETS, BUDGETS,
    { name: "hold", label: "Or the smallest that holds", short: true, hint: "A bound on a metric, like kl<=0.05, in place of budgets." },
    SOLVER, { name: "explorer", label: "Explorer", short: true, options: ["refine", "evolution", "bayes", "bayes-gp"] },
    { name: "explore", label: "Explore", number: true, short: true, value: 20, hint: "How many allocations to measure beyond what the solver gives." },
    PROFILER, MORE],
  profile: [SCHEMES, PROFILER,
    { name: "until", label: "Until", number: true, short: true, hint: "Stop when the budgets’ allocations change by less than this share: 0.05. Empty: all data." },
    BUDGETS, MORE],
  measure: [{ name: "schemes", label: "Allocation", json: true, required: true, hint: 'Layer to scheme, as JSON: {"head": "w4"}. Layers left out stay as they are.' }, MORE],
  export: [{ name: "trial", label: "Trial", number: true, short: true, required: true, hint: "Its number." },
    { name: "format", label: "Format", short: true, options: ["", "compressed-tensors", "diffusers", "gguf", "onnx", "safetensors"], words: { "": "as it was counted" }, hint: "The model is audited in a fresh process before the export is called done." }],
  report: [{ name: "metric", label: "Metric", short: true, value: "kl" },
    { name: "edition", label: "Edition", short: true, hint: "Any word: with another one a new page is written." }],
};

const SAMPLES = { name: "samples", label: "Samples", number: true, short: true, hint: "Of the calibration data; empty: as many as usual." };
const DATA = "Under a folder that the operator allows.";

/** kind of task -> its arguments */
export const TASKS = {
  language: [{ name: "model", label: "Model", required: true, hint: `A folder of transformers with model.safetensors. ${DATA}` },
    { name: "calibration", label: "Calibration data", required: true, hint: "Text, JSONL, or token ids in .npz." },
    { name: "evaluation", label: "Evaluation data", hint: "Other data, to judge trials by; empty: a part of the calibration’s." },
    { name: "tokenizer", label: "Tokenizer", hint: "Where the model’s folder has none." },
    { name: "length", label: "Length", number: true, short: true, hint: "Tokens of a sequence." }, SAMPLES],
  vision: [{ name: "model", label: "Model", required: true, hint: "A folder of transformers, or file.py:function where the operator allows code." },
    { name: "weights", label: "Weights", hint: "A .safetensors file for a function’s model." },
    { name: "calibration", label: "Calibration images", required: true, hint: "An .npz file; file.npz:x_train,y_train names its arrays." },
    { name: "evaluation", label: "Evaluation images" }, SAMPLES],
  diffusion: [{ name: "model", label: "Pipeline", required: true, hint: "A folder of diffusers, or file.py:function where the operator allows code." },
    { name: "calibration", label: "Calibration data", hint: "Conditions; empty: noise alone." }, { name: "evaluation", label: "Evaluation data" },
    { name: "score", label: "Score", hint: "file.py:function that judges images." },
    { name: "steps", label: "Steps", number: true, short: true }, SAMPLES],
  module: [{ name: "function", label: "Function", required: true, hint: "path/to/file.py:function, where the operator allows code (--allow-functions)." },
    { name: "arguments", label: "Its arguments", json: true, hint: 'As JSON: {"width": 8}.' }],
};
export const TASK_MORE = { name: "", label: "More arguments of the task", json: true, hint: 'As JSON: {"batch": 8, "device": "cpu", "seed": 0} (docs/tasks.md).' };

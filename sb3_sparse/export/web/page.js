"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
/* The policies of this page, the exported one last, and the games that they play; both are empty until the policies are checked. */
const policies = [], games = [];

const place = (name) => document.getElementById(name);

function element(name, content = "", properties = {}) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...[content].flat());
    return made;
}

/* Rows of texts and numbers, the first of which are the headings. A column of numbers is one whose first row has one. */
function table([heads, ...rows]) {
    const numbers = rows[0].map((value) => /^[-\d.,]+$/.test(value));
    const line = (name) => (row) =>
        element("tr", row.map((value, i) => element(name, value, { className: numbers[i] ? "number" : "" })));
    return element("table", [element("thead", line("th")(heads)), element("tbody", rows.map(line("td")))]);
}

const whole = (number) => number.toLocaleString("en-US");

function summarize(returns) {
    if (returns.length === 0) return ["not measured", "", ""];
    const mean = returns.reduce((sum, each) => sum + each, 0) / returns.length;
    const variance = returns.reduce((sum, each) => sum + (each - mean) ** 2, 0) / returns.length;
    return [mean.toFixed(1), Math.sqrt(variance).toFixed(1), whole(returns.length)];
}

function showSizes() {
    const rows = data.players.map((each) => [
        each.name, each.bits === 32 ? "float32" : `${each.bits} bits`, whole(each.weights), whole(each.bytes),
        ...summarize(each.returns),
    ]);
    place("sizes").append(
        table([["policy", "weights are", "weights", "bytes of its compact file", "mean return", "standard deviation", "episodes"], ...rows]),
        element("p", "The compact file of the exported policy, and what other formats take for the policy as it was trained:"),
        table([["format", "bytes"], ...Object.entries(data.formats).map(([name, bytes]) => [name, whole(bytes)])]),
    );
}

/* The density of a layer, 0 to 255, one pixel for each block of weights. */
function picture({ name, rows, columns, height, width, density }, scale) {
    const canvas = element("canvas", [], { width, height, role: "img", ariaLabel: `weights of ${name}` });
    const pen = canvas.getContext("2d"), image = pen.createImageData(width, height);
    fromBase64(density).forEach((value, i) => image.data.set([255 - value, 255 - 0.8 * value, 255 - 0.5 * value, 255], 4 * i));
    pen.putImageData(image, 0, 0);
    canvas.style.width = `${Math.max(4, scale * columns)}px`;
    canvas.style.height = `${Math.max(4, scale * rows)}px`;
    return element("figure", [canvas, element("figcaption", [name, element("br"), `${whole(rows)} x ${whole(columns)}`])]);
}

function showMasks() {
    const sides = data.players.flatMap((each) => each.layers.flatMap(({ rows, columns }) => [rows, columns]));
    const scale = Math.min(4, 200 / Math.max(...sides));
    for (const { name, layers } of data.players)
        place("masks").append(
            element("h3", name),
            element("div", layers.map((layer) => picture(layer, scale)), { className: "layers" }),
        );
}

/* Each policy gives Python's actions of its examples, which are one episode, or there is none of them. */
function check(policy, { name, examples }) {
    policy.reset();
    examples.observations.forEach((observation, i) => {
        const action = [policy.predict(observation)].flat(), wanted = examples.actions[i];
        if (!wanted.every((value, j) => Math.abs(value - action[j]) <= examples.tolerance))
            throw new Error(`${name} gives the action ${action} in this browser and ${wanted} in Python`);
    });
    policy.reset();
}

function offerPredict() {
    const example = data.players.at(-1).examples.observations[0];
    place("observation").value = JSON.stringify(example.map((value) => Number(value.toPrecision(4))));
    const answer = () => {
        let rows;
        try {
            const observation = JSON.parse(place("observation").value);
            rows = policies.map((policy, i) => [data.players[i].name, JSON.stringify(policy.predict(observation))]);
        } catch (error) {
            rows = [["", error.message]];
        }
        place("actions").replaceChildren(table([["policy", "action"], ...rows]));
    };
    place("try").addEventListener("submit", (event) => {
        event.preventDefault();
        answer();
    });
    answer();
}

/* Of the policy that the page is about, for its console and other scripts. */
function predict(observation) {
    if (policies.length === 0) throw new Error("the policies are not loaded, or failed their check");
    return policies.at(-1).predict(observation);
}

async function main() {
    showSizes();
    showMasks();
    for (const note of data.notes) place("notes").append(element("p", note));
    place("notes").hidden = data.notes.length === 0;
    const module = await WebAssembly.compile(fromBase64(data.kernel));
    const loaded = await Promise.all(data.players.map((player) => Policy.load(module, player)));
    loaded.forEach((policy, i) => check(policy, data.players[i]));
    policies.push(...loaded);
    place("check").textContent = `Self test passed: ${data.players.map(({ name }) => name).join(" and ")} give Python's actions.`;
    offerPredict();
    if (data.env !== null) games.push(...playSideBySide(ENVIRONMENTS[data.env]));
}

/* Resolves when the page is complete. */
const ready = main().catch((error) => {
    place("check").textContent = `The policies do not work here: ${error.message}`;
    place("check").className = "failed";
    throw error;
});

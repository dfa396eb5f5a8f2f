"use strict";

/* The bytes of base64 text. */
const fromBase64 = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

/* A policy. Build one with `await Policy.load(module, content)`. */
class Policy {
    /* The kernel as a WebAssembly.Module, and what the page holds of a policy. */
    static async load(module, content) {
        return new Policy(await WebAssembly.instantiate(module), content);
    }

    constructor(instance, { plan, scratch, shape, inputs, actions, discrete, memory }) {
        const { memory: pages, predict, __heap_base: base } = instance.exports;
        const bytes = fromBase64(plan), after = (address, size) => (address + size + 63) & ~63;
        const at = { plan: after(base.value, 0) };
        at.x = after(at.plan, bytes.length);
        at.action = after(at.x, scratch);
        at.state = after(at.action, 8 * actions);
        const missing = after(at.state, 8 * memory) - pages.buffer.byteLength;
        if (missing > 0) pages.grow(Math.ceil(missing / 65536));
        new Uint8Array(pages.buffer).set(bytes, at.plan);
        this.shape = shape;
        this.discrete = discrete;
        this.x = new Float32Array(pages.buffer, at.x, inputs);
        /* Classes have 64 bits, of which the lower half comes first. */
        const kind = discrete ? Int32Array : Float32Array;
        this.action = new kind(pages.buffer, at.action, discrete ? 2 * actions : actions);
        this.state = new Float32Array(pages.buffer, at.state, 2 * memory);
        this.act = () => predict(at.plan, at.x, at.action, at.state);
    }

    /* The deterministic action, as Python's predict(observation) gives it. The observation is an array of numbers as the
       environment gives them, nested or not. One number comes back for a Discrete action, else a flat array of them. */
    predict(observation) {
        const numbers = ArrayBuffer.isView(observation) ? observation : [observation].flat(Infinity);
        if (numbers.length !== this.x.length || !Array.prototype.every.call(numbers, (value) => typeof value === "number"))
            throw new TypeError(`this policy takes an observation of ${this.x.length} numbers`);
        this.x.set(numbers);
        this.act();
        const action = Array.from(this.action).filter((_, i) => !this.discrete || i % 2 === 0);
        return this.shape.length === 0 ? action[0] : action;
    }

    /* Begin an episode: a recurrent policy forgets. */
    reset() {
        this.state.fill(0);
    }
}

if (typeof module !== "undefined") module.exports = { Policy };

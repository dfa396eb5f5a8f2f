"use strict";

/* Episodes of a policy in an environment, and their picture. */
class Game {
    constructor(environment, policy, name) {
        Object.assign(this, { environment, policy, name, returns: [] });
        this.canvas = element("canvas", [], { width: 600, height: 400, role: "img", ariaLabel: `${name} plays` });
        this.caption = element("figcaption");
        this.figure = element("figure", [element("strong", name), this.canvas, this.caption]);
    }

    begin(seed) {
        this.state = this.environment.reset(randomFrom(seed));
        this.action = undefined;
        this.steps = this.total = 0;
        this.over = false;
        this.policy.reset();
    }

    step() {
        if (this.over) return;
        this.action = this.policy.predict(this.environment.observe(this.state));
        const { state, reward, terminated } = this.environment.step(this.state, this.action);
        this.state = state;
        this.steps += 1;
        this.total += reward;
        this.over = terminated || this.steps === this.environment.limit;
        if (this.over) this.returns.push(this.total);
    }

    draw() {
        this.environment.draw(penOf(this.canvas), this.state, this.action);
        const [mean, , episodes] = summarize(this.returns);
        const before = this.returns.length === 0 ? "" : `; mean return of ${episodes} episodes ${mean}`;
        this.caption.textContent = `step ${this.steps}, return ${this.total.toFixed(1)}${before}`;
    }
}

/* Numbers of [0, 1), the same for the same seed: the generator mulberry32. */
function randomFrom(seed) {
    return () => {
        seed = (seed + 0x6d2b79f5) | 0;
        let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
        t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
        return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
}

/* Lines, disks and arcs on a cleared canvas, in 300 x 200 points. */
function penOf(canvas) {
    const context = canvas.getContext("2d");
    context.setTransform(canvas.width / 300, 0, 0, canvas.height / 200, 0, 0);
    context.clearRect(0, 0, 300, 200);
    const stroke = (color, width) => Object.assign(context, { strokeStyle: color, lineWidth: width, lineJoin: "round" }).stroke();
    return {
        line(points, color, width) {
            context.beginPath();
            points.forEach(([x, y]) => context.lineTo(x, y));
            stroke(color, width);
        },
        disc(x, y, radius, color) {
            context.beginPath();
            context.arc(x, y, radius, 0, 2 * Math.PI);
            Object.assign(context, { fillStyle: color }).fill();
        },
        arc(x, y, radius, from, to, color) {
            context.beginPath();
            context.arc(x, y, radius, from, to, to < from);
            stroke(color, 4);
        },
    };
}

/* One game for each policy. Those that begin together have the same first state, and wait for each other at the end. */
function playSideBySide(environment) {
    const playing = policies.map((policy, i) => new Game(environment, policy, data.players[i].name));
    let seed = 0, last = performance.now(), owed = 0, paused = false;
    const begin = () => playing.forEach((game) => game.begin(seed));
    const frame = () => {
        const now = performance.now(), speed = environment.fps * Number(place("speed").value);
        if (!paused) owed += Math.min(0.1, (now - last) / 1000) * speed;
        last = now;
        for (; owed >= 1; owed--) {
            if (playing.every((game) => game.over)) {
                seed += 1;
                begin();
            } else playing.forEach((game) => game.step());
            /* The end of an episode is shown for a second. */
            if (playing.every((game) => game.over)) owed = Math.min(0, owed) - speed;
        }
        playing.forEach((game) => game.draw());
    };
    place("pause").addEventListener("click", () => {
        paused = !paused;
        place("pause").textContent = paused ? "Go on" : "Pause";
    });
    place("environment").textContent = data.env;
    place("games").append(...playing.map((game) => game.figure));
    place("game").hidden = false;
    begin();
    setInterval(frame, 16);
    return playing;
}

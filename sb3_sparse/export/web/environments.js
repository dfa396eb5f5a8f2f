"use strict";

/* The classic control environments of Gymnasium 1.x, with its equations, constants and order of operations; where Gymnasium
   computes in float32, so does Math.fround. A state is an array of numbers. Each environment has

     limit, fps                      steps of an episode at most, and steps per second
     reset(random)                   a first state, from a function that draws numbers of [0, 1)
     observe(state)                  the observation
     step(state, action)             { state, reward, terminated }; an action as a policy's predict gives it
     draw(pen, state, action)        a picture of 300 x 200 points */

const clip = (x, low, high) => (x < low ? low : x > high ? high : x);
const uniform = (random, low, high) => low + (high - low) * random();
const float32 = Math.fround;

const PENDULUM = {
    limit: 200,
    fps: 20,
    reset: (random) => [uniform(random, -Math.PI, Math.PI), uniform(random, -1, 1)],
    observe: ([angle, speed]) => [Math.cos(angle), Math.sin(angle), speed],
    step([angle, speed], [torque]) {
        const u = clip(float32(torque), -2, 2);
        const turn = 2 * Math.PI, rest = (angle + Math.PI) % turn;
        const error = (rest < 0 ? rest + turn : rest) - Math.PI;
        const cost = error ** 2 + 0.1 * speed ** 2 + float32(float32(0.001) * float32(u * u));
        const next = clip(speed + (15 * Math.sin(angle) + float32(3 * u)) * 0.05, -8, 8);
        return { state: [angle + next * 0.05, next], reward: -cost, terminated: false };
    },
    draw(pen, [angle], action) {
        const x = 150 - 80 * Math.sin(angle), y = 100 - 80 * Math.cos(angle);
        pen.line([[150, 100], [x, y]], "#c44", 16);
        pen.disc(150, 100, 4, "#222");
        if (action) pen.arc(150, 100, 26, Math.PI / 2, Math.PI / 2 - action[0], "#36c");
    },
};

const CARTPOLE = {
    limit: 500,
    fps: 50,
    reset: (random) => [0, 0, 0, 0].map(() => uniform(random, -0.05, 0.05)),
    observe: (state) => state,
    step([x, speed, angle, spin], action) {
        const force = action === 1 ? 10 : -10, total = 1.1, cos = Math.cos(angle), sin = Math.sin(angle);
        const push = (force + 0.05 * (spin * spin) * sin) / total;
        const angular = (9.8 * sin - cos * push) / (0.5 * (4 / 3 - (0.1 * (cos * cos)) / total));
        const linear = push - (0.05 * angular * cos) / total;
        const state = [x + 0.02 * speed, speed + 0.02 * linear, angle + 0.02 * spin, spin + 0.02 * angular];
        const tilt = (12 * 2 * Math.PI) / 360;
        return { state, reward: 1, terminated: Math.abs(state[0]) > 2.4 || Math.abs(state[2]) > tilt };
    },
    draw(pen, [x, , angle], action) {
        const at = 150 + x * 62;
        pen.line([[0, 150], [300, 150]], "#222", 1);
        pen.line([[at - 25, 150], [at + 25, 150]], "#222", 26);
        pen.line([[at, 144], [at + 100 * Math.sin(angle), 144 - 100 * Math.cos(angle)]], "#ca9865", 9);
        pen.disc(at, 144, 4, "#8184cb");
        if (action !== undefined) pen.line([[at, 176], [at + (action === 1 ? 30 : -30), 176]], "#36c", 4);
    },
};

/* Both mountain cars. */
function drawCar(pen, position, goal) {
    const place = (x) => [(x + 1.2) * 166, 170 - 140 * (Math.sin(3 * x) * 0.45 + 0.45)];
    pen.line(Array.from({ length: 61 }, (_, i) => place(-1.2 + 0.03 * i)), "#222", 1);
    const [x, y] = place(goal), [car, ground] = place(position);
    pen.line([[x, y], [x, y - 34], [x + 16, y - 28], [x, y - 22]], "#c90", 2);
    pen.disc(car, ground - 9, 9, "#c44");
}

const MOUNTAIN_CAR = {
    limit: 200,
    fps: 30,
    reset: (random) => [uniform(random, -0.6, -0.4), 0],
    observe: (state) => state,
    step([position, speed], action) {
        let next = clip(speed + ((action - 1) * 0.001 + Math.cos(3 * position) * -0.0025), -0.07, 0.07);
        const x = clip(position + next, -1.2, 0.6);
        if (x === -1.2 && next < 0) next = 0;
        return { state: [x, next], reward: -1, terminated: x >= 0.5 && next >= 0 };
    },
    draw: (pen, [position]) => drawCar(pen, position, 0.5),
};

const MOUNTAIN_CAR_CONTINUOUS = {
    limit: 999,
    fps: 30,
    reset: (random) => [float32(uniform(random, -0.6, -0.4)), 0],
    observe: (state) => state,
    step([position, speed], [action]) {
        const push = float32(clip(float32(action), -1, 1) * float32(0.0015));
        const pull = float32(0.0025 * Math.cos(float32(3 * position)));
        const fastest = float32(0.07), left = float32(-1.2);
        let next = clip(float32(speed + float32(push - pull)), -fastest, fastest);
        const x = clip(float32(position + next), left, float32(0.6));
        if (x === left && next < 0) next = 0;
        const terminated = x >= float32(0.45) && next >= 0;
        return { state: [x, next], reward: (terminated ? 100 : 0) - action ** 2 * 0.1, terminated };
    },
    draw: (pen, [position]) => drawCar(pen, position, 0.45),
};

/* Time derivatives of its two angles and their speeds, by Sutton and Barto's book. */
function swing([first, second, spin1, spin2], torque) {
    const cos = Math.cos(second), sin = Math.sin(second), g = 9.8;
    const d1 = 0.25 + (1.25 + cos) + 2, d2 = 0.25 + 0.5 * cos + 1;
    const phi2 = 0.5 * g * Math.cos(first + second - Math.PI / 2);
    const phi1 = -0.5 * spin2 ** 2 * sin - spin2 * spin1 * sin + 1.5 * g * Math.cos(first - Math.PI / 2) + phi2;
    const turn2 = (torque + (d2 / d1) * phi1 - 0.5 * spin1 ** 2 * sin - phi2) / (1.25 - d2 ** 2 / d1);
    return [spin1, spin2, -(d2 * turn2 + phi1) / d1, turn2];
}

/* An angle between -pi and pi. */
function wrap(x) {
    while (x > Math.PI) x -= 2 * Math.PI;
    while (x < -Math.PI) x += 2 * Math.PI;
    return x;
}

const ACROBOT = {
    limit: 500,
    fps: 15,
    reset: (random) => [0, 0, 0, 0].map(() => float32(uniform(random, -0.1, 0.1))),
    observe: ([a, b, spin1, spin2]) => [Math.cos(a), Math.sin(a), Math.cos(b), Math.sin(b), spin1, spin2],
    step(state, action) {
        const torque = action - 1, dt = 0.2;
        const along = (slope, time) => state.map((value, i) => value + time * slope[i]);
        /* The fourth-order method of Runge and Kutta. */
        const k1 = swing(state, torque), k2 = swing(along(k1, dt / 2), torque);
        const k3 = swing(along(k2, dt / 2), torque), k4 = swing(along(k3, dt), torque);
        const [a, b, spin1, spin2] = state.map((value, i) => value + (dt / 6) * (k1[i] + 2 * k2[i] + 2 * k3[i] + k4[i]));
        const next = [wrap(a), wrap(b), clip(spin1, -4 * Math.PI, 4 * Math.PI), clip(spin2, -9 * Math.PI, 9 * Math.PI)];
        const terminated = -Math.cos(next[0]) - Math.cos(next[1] + next[0]) > 1;
        return { state: next, reward: terminated ? 0 : -1, terminated };
    },
    draw(pen, [a, b]) {
        const x = 150 + 44 * Math.sin(a), y = 100 + 44 * Math.cos(a);
        pen.line([[0, 56], [300, 56]], "#999", 1);
        pen.line([[150, 100], [x, y], [x + 44 * Math.sin(a + b), y + 44 * Math.cos(a + b)]], "#0aa", 8);
        pen.disc(150, 100, 5, "#cc0");
        pen.disc(x, y, 5, "#cc0");
    },
};

const ENVIRONMENTS = {
    "Acrobot-v1": ACROBOT,
    "CartPole-v1": CARTPOLE,
    "MountainCar-v0": MOUNTAIN_CAR,
    "MountainCarContinuous-v0": MOUNTAIN_CAR_CONTINUOUS,
    "Pendulum-v1": PENDULUM,
};

if (typeof module !== "undefined") module.exports = { ENVIRONMENTS };

"use strict";

/* Masks: COCO's compressed run lengths as pixels, and pixels as outlines along their edges. */

var igvg = globalThis.igvg ?? {};

igvg.masks = (() => {
  /** The run lengths of COCO's compressed string (rleFrString of COCO's maskApi.c). */
  function decodeRuns(counts) {
    const runs = [];
    for (let position = 0; position < counts.length; ) {
      let run = 0;
      let shift = 0;
      let code;
      do {
        code = counts.charCodeAt(position++) - 48;
        run |= (code & 31) << shift;
        shift += 5;
      } while (code & 32);
      if (code & 16 && shift < 32) run |= -1 << shift;
      if (runs.length > 2) run += runs[runs.length - 2];
      runs.push(run);
    }
    return runs;
  }

  /**
   * The pixels of `{size: [height, width], counts}`: (height * width) of 0 and 1, row by row.
   * Run lengths go down the columns and start with pixels outside.
   */
  function decodeMask({ size: [height, width], counts }) {
    const pixels = new Uint8Array(height * width);
    let index = 0;
    let inside = 0;
    for (const run of decodeRuns(counts)) {
      const end = index + run;
      if (run < 0 || end > pixels.length) throw new RangeError(`run lengths beyond a mask of [${height}, ${width}]`);
      if (inside) for (let i = index; i < end; i++) pixels[(i % height) * width + ((i / height) | 0)] = 1;
      index = end;
      inside = 1 - inside;
    }
    if (index !== pixels.length) throw new RangeError(`run lengths do not fill a mask of [${height}, ${width}]`);
    return pixels;
  }

  /** The number of pixels inside. */
  function countPixels(mask) {
    return decodeRuns(mask.counts).reduce((sum, run, index) => sum + (index % 2 ? run : 0), 0);
  }

  /**
   * Bits of the directions (1 right, 2 down, 4 left, 8 up) in which an edge between inside and outside leaves each
   * corner of the pixels, (height + 1) * (width + 1); the inside is on the right of every edge.
   */
  function findEdges(pixels, height, width) {
    const stride = width + 1;
    const edges = new Uint8Array((height + 1) * stride);
    for (let y = 0, index = 0; y < height; y++) {
      for (let x = 0; x < width; x++, index++) {
        if (!pixels[index]) continue;
        const corner = y * stride + x;
        if (y === 0 || !pixels[index - width]) edges[corner] |= 1;
        if (x === width - 1 || !pixels[index + 1]) edges[corner + 1] |= 2;
        if (y === height - 1 || !pixels[index + width]) edges[corner + stride + 1] |= 4;
        if (x === 0 || !pixels[index - 1]) edges[corner + stride] |= 8;
      }
    }
    return edges;
  }

  /** One closed loop of edges from a corner on, as the corners where it turns; its edges are taken out of `edges`. */
  function takeLoop(edges, start, stride) {
    const steps = [1, stride, -1, -stride];
    const turns = [];
    let corner = start;
    let direction = Math.log2(edges[start] & -edges[start]);
    while (direction >= 0) {
      turns.push(corner);
      do {
        edges[corner] &= ~(1 << direction);
        corner += steps[direction];
      } while (edges[corner] & (1 << direction) && !(edges[corner] & (1 << ((direction + 1) & 3))));
      // To the right first: pixels that touch in a corner alone get loops of their own.
      const options = [(direction + 1) & 3, direction, (direction + 3) & 3];
      direction = options.find((option) => edges[corner] & (1 << option)) ?? -1;
    }
    return turns;
  }

  /** Every `step`-th pixel of every `step`-th row, from the middle of the first block on. */
  function takePixels(pixels, [height, width], step) {
    if (step === 1) return { pixels, height, width };
    const [rows, columns, start] = [Math.ceil(height / step), Math.ceil(width / step), step >> 1];
    const taken = new Uint8Array(rows * columns);
    for (let y = 0, index = 0; y < rows; y++) {
      const row = Math.min(height - 1, y * step + start) * width;
      for (let x = 0; x < columns; x++) taken[index++] = pixels[row + Math.min(width - 1, x * step + start)];
    }
    return { pixels: taken, height: rows, width: columns };
  }

  /**
   * The outlines of a mask: one list of [x, y] for each closed loop along the edges of pixels, or of blocks of
   * `step` × `step` pixels.
   */
  function traceOutlines(mask, step = 1) {
    const { pixels, height, width } = takePixels(decodeMask(mask), mask.size, step);
    const stride = width + 1;
    const edges = findEdges(pixels, height, width);
    const loops = [];
    for (let corner = 0; corner < edges.length; corner++) {
      while (edges[corner]) {
        const turns = takeLoop(edges, corner, stride);
        loops.push(turns.map((turn) => [step * (turn % stride), step * Math.floor(turn / stride)]));
      }
    }
    return loops;
  }

  const paths = new WeakMap();

  /** The outlines as a path in pixels of the mask, to be filled by the even-odd rule. */
  function toPath(mask, step = 1) {
    if (!paths.has(mask)) paths.set(mask, new Map());
    if (paths.get(mask).has(step)) return paths.get(mask).get(step);
    const path = new Path2D();
    for (const loop of traceOutlines(mask, step)) {
      loop.forEach(([x, y], index) => (index ? path.lineTo(x, y) : path.moveTo(x, y)));
      path.closePath();
    }
    paths.get(mask).set(step, path);
    return path;
  }

  return { decodeRuns, decodeMask, countPixels, traceOutlines, toPath };
})();

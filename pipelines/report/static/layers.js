"use strict";

/*
 * Layers: what is known about one expression, drawn over its image. The canvas lies on an <img>: an image from
 * file:// would lock a canvas that it is drawn on.
 */

var igvg = globalThis.igvg ?? {};

igvg.layers = (() => {
  // Colors of Okabe and Ito.
  const INSTANCE_COLORS = ["#e69f00", "#56b4e9", "#cc79a7", "#f0e442", "#d55e00", "#0072b2"];
  const TRUTH_COLOR = "#009e73";
  const MASK_COLOR = "#ffffff";
  const GLOBAL_COLOR = "#56b4e9";
  // Cividis (Nuñez, Anderton and Renslow 2018), from low to high.
  const HEAT = [[0, 34, 78], [53, 69, 108], [102, 105, 112], [148, 142, 119], [200, 184, 102], [254, 232, 56]];
  const DASH = [7, 5];

  /** All layers, from the bottom to the top; `letter` is the key that toggles a layer. */
  const LAYERS = [
    { key: "attention", name: "Attention map", letter: "a", shown: false },
    { key: "global-mask", name: "Global mask", letter: "g", shown: false },
    { key: "mask", name: "Merged mask", letter: "m", shown: false },
    { key: "instance-masks", name: "Instance masks", letter: "i", shown: true },
    { key: "truth-masks", name: "Ground truth masks", letter: "r", shown: false },
    { key: "truth-boxes", name: "Ground truth boxes", letter: "t", shown: true },
    { key: "boxes", name: "Predicted boxes", letter: "b", shown: true },
    { key: "all-points", name: "Points of all queries", letter: "q", shown: false },
    { key: "points", name: "Reference points", letter: "p", shown: true },
  ];

  /** The color of a predicted instance, the same for the same index. */
  function pickColor(index) {
    return INSTANCE_COLORS[index % INSTANCE_COLORS.length];
  }

  /** A color that text on the color of an instance can be read in. */
  function pickInk(color) {
    return color === "#0072b2" || color === TRUTH_COLOR ? "#ffffff" : "#000000";
  }

  /** What a layer draws of an expression: a list, empty where there is nothing. */
  function takeContents(key, truth, result) {
    const contents = {
      attention: [result.attention],
      "global-mask": [result.global_mask],
      mask: [result.mask],
      "instance-masks": result.instance_masks,
      "truth-masks": truth?.masks,
      "truth-boxes": truth?.boxes,
      boxes: result.boxes,
      "all-points": result.all_points,
      points: result.points,
    };
    return (contents[key] ?? []).filter((content) => content);
  }

  /** A repeated tile of `size` CSS pixels with some lines or dots in one color. */
  function makePattern(pen, color, size, draw) {
    const tile = document.createElement("canvas");
    tile.width = tile.height = Math.max(4, Math.round(size * pen.ratio));
    const context = tile.getContext("2d");
    context.strokeStyle = context.fillStyle = color;
    context.lineWidth = 1.4 * pen.ratio;
    draw(context, tile.width);
    const pattern = pen.context.createPattern(tile, "repeat");
    pattern.setTransform(new DOMMatrix().scale(1 / pen.scale));
    return pattern;
  }

  function drawDiagonals(context, side) {
    for (const shift of [-side, 0, side]) {
      context.moveTo(shift - 1, side + 1);
      context.lineTo(shift + side + 1, -1);
    }
    context.stroke();
  }

  function drawRows(context, side) {
    context.fillRect(0, 0, side, side / 4);
  }

  function drawDots(context, side) {
    context.arc(side / 2, side / 2, side / 7, 0, 2 * Math.PI);
    context.fill();
  }

  /** A line on a casing that shows on any image: dark below solid lines, white below dashes. */
  function strokePath(pen, path, color, dashed = false) {
    const { context, unit } = pen;
    context.lineJoin = pen.compact ? "bevel" : "round";
    context.setLineDash([]);
    context.lineWidth = 4.6 * unit;
    context.strokeStyle = dashed ? "rgb(255 255 255 / 85%)" : "rgb(0 0 0 / 65%)";
    context.stroke(path);
    context.setLineDash(dashed ? DASH.map((length) => length * unit) : []);
    context.lineWidth = 2.6 * unit;
    context.strokeStyle = color;
    context.stroke(path);
    context.setLineDash([]);
  }

  function fillPath(pen, path, style, opacity) {
    pen.context.globalAlpha = opacity;
    pen.context.fillStyle = style;
    pen.context.fill(path, "evenodd");
    pen.context.globalAlpha = 1;
  }

  /** A rectangle's path, inside the image by half the width of its line, so that no side is cut off. */
  function toRectangle(pen, [x0, y0, x1, y1]) {
    const inset = 2.3 * pen.unit;
    const [left, top] = [Math.max(x0, inset), Math.max(y0, inset)];
    const path = new Path2D();
    path.rect(left, top, Math.min(x1, pen.width - inset) - left, Math.min(y1, pen.height - inset) - top);
    return path;
  }

  function toCircle([x, y], radius) {
    const path = new Path2D();
    path.arc(x, y, radius, 0, 2 * Math.PI);
    return path;
  }

  function paintAttention(pen, [{ size, values }]) {
    const [height, width] = size;
    const bytes = Uint8Array.from(atob(values), (character) => character.charCodeAt(0));
    const map = new ImageData(width, height);
    bytes.forEach((value, index) => {
      const position = (value / 255) * (HEAT.length - 1);
      const low = Math.min(Math.floor(position), HEAT.length - 2);
      const color = HEAT[low].map((channel, i) => channel + (position - low) * (HEAT[low + 1][i] - channel));
      map.data.set([...color, 110 + (90 * value) / 255], 4 * index);
    });
    const tile = document.createElement("canvas");
    [tile.width, tile.height] = [width, height];
    tile.getContext("2d").putImageData(map, 0, 0);
    pen.context.imageSmoothingQuality = "high";
    pen.context.drawImage(tile, 0, 0, pen.width, pen.height);
  }

  function paintMask(pen, masks, color, pattern, dashed = false) {
    for (const path of masks.map((mask) => igvg.masks.toPath(mask, pen.step))) {
      fillPath(pen, path, color, 0.14);
      fillPath(pen, path, pattern, 0.8);
      strokePath(pen, path, color, dashed);
    }
  }

  function paintInstanceMasks(pen, masks) {
    masks.forEach((mask, index) => {
      if (pen.hidden.has(index)) return;
      const path = igvg.masks.toPath(mask, pen.step);
      fillPath(pen, path, pickColor(index), 0.42);
      strokePath(pen, path, pickColor(index));
    });
  }

  function paintTruthBoxes(pen, boxes) {
    for (const box of boxes) strokePath(pen, toRectangle(pen, box), TRUTH_COLOR, true);
  }

  function paintBoxes(pen, boxes) {
    boxes.forEach((box, index) => {
      if (!pen.hidden.has(index)) strokePath(pen, toRectangle(pen, box), pickColor(index));
    });
  }

  function paintAllPoints(pen, points) {
    for (const point of points) strokePath(pen, toCircle(point, 3.5 * pen.unit), "#ffffff");
  }

  function paintPoints(pen, points) {
    points.forEach((point, index) => {
      if (pen.hidden.has(index)) return;
      const circle = toCircle(point, 6 * pen.unit);
      fillPath(pen, circle, pickColor(index), 1);
      strokePath(pen, circle, "#ffffff");
    });
  }

  const PAINTERS = {
    attention: paintAttention,
    "global-mask": (pen, masks) => paintMask(pen, masks, GLOBAL_COLOR, makePattern(pen, GLOBAL_COLOR, 7, drawRows)),
    mask: (pen, masks) => paintMask(pen, masks, MASK_COLOR, makePattern(pen, MASK_COLOR, 8, drawDots)),
    "instance-masks": paintInstanceMasks,
    "truth-masks": (pen, masks) =>
      paintMask(pen, masks, TRUTH_COLOR, makePattern(pen, TRUTH_COLOR, 9, drawDiagonals), true),
    "truth-boxes": paintTruthBoxes,
    boxes: paintBoxes,
    "all-points": paintAllPoints,
    points: paintPoints,
  };

  /** A label near a point, moved down until it covers no other one. */
  function writeLabel(pen, text, [x, y], color, taken) {
    const { context, unit } = pen;
    context.font = `600 ${13 * unit}px system-ui, sans-serif`;
    context.textBaseline = "middle";
    const [width, height] = [context.measureText(text).width + 10 * unit, 19 * unit];
    const left = Math.max(0, Math.min(x, pen.width - width));
    let top = Math.max(0, Math.min(y, pen.height - height));
    const covers = (other) =>
      left < other.left + other.width && other.left < left + width && Math.abs(other.top - top) < height;
    while (taken.some(covers) && top + 2 * height <= pen.height) top += height + unit;
    taken.push({ left, top, width });
    context.fillStyle = color;
    context.fillRect(left, top, width, height);
    context.fillStyle = pickInk(color);
    context.fillText(text, left + 5 * unit, top + height / 2);
  }

  /** The numbers of instances, with scores for predictions; at their points where neither boxes nor masks are shown. */
  function writeLabels(pen, truth, result, shown) {
    const taken = [];
    if (shown.has("boxes") || shown.has("instance-masks")) {
      (result.boxes ?? []).forEach((box, index) => {
        if (pen.hidden.has(index)) return;
        const score = result.scores?.[index];
        const label = score === undefined ? `${index + 1}` : `${index + 1}  ${score.toFixed(2)}`;
        writeLabel(pen, label, [box[0], box[1] - 19 * pen.unit], pickColor(index), taken);
      });
    } else if (shown.has("points")) {
      (result.points ?? []).forEach(([x, y], index) => {
        if (pen.hidden.has(index)) return;
        writeLabel(pen, `${index + 1}`, [x + 9 * pen.unit, y - 9.5 * pen.unit], pickColor(index), taken);
      });
    }
    if (shown.has("truth-boxes") || shown.has("truth-masks")) {
      truth?.boxes.forEach((box, index) => writeLabel(pen, `GT ${index + 1}`, [box[0], box[3]], TRUTH_COLOR, taken));
    }
  }

  /**
   * Draw the layers of one result.
   *
   * `view` has `width` and `height` of the image in its own pixels; `displayWidth`, the width in CSS pixels at which it
   * is shown; `truth` (or null) and `result` as in data/details-*.js; `shown`, a Set of layer keys; `hidden`, a Set of
   * the indices of predicted instances that are left out; and `compact`, for thin lines without labels.
   */
  function draw(canvas, { width, height, displayWidth, truth, result, shown, hidden = new Set(), compact = false }) {
    const ratio = globalThis.devicePixelRatio || 1;
    canvas.width = Math.max(1, Math.round(displayWidth * ratio));
    canvas.height = Math.max(1, Math.round((displayWidth * ratio * height) / width));
    const scale = canvas.width / width;
    const context = canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    const unit = ((compact ? 0.6 : 1) * ratio) / scale;
    // Masks are drawn no finer than thumbnails are.
    const step = compact ? Math.max(1, Math.floor(1 / scale)) : 1;
    const pen = { context, scale, ratio, unit, step, compact, width, height, hidden };
    for (const { key } of LAYERS) {
      const contents = shown.has(key) ? takeContents(key, truth, result) : [];
      if (contents.length) PAINTERS[key](pen, contents);
    }
    if (!compact) writeLabels(pen, truth, result, shown);
  }

  return { LAYERS, TRUTH_COLOR, pickColor, pickInk, takeContents, draw };
})();

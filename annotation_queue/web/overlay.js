// Paints masks straight from their run lengths; none is decoded. Runs go down the columns of a mask, so the picture
// lies on its side, where each run is one stretch of memory, and is turned upright when it is drawn.

export class Overlay {
  // Colours are [red, green, blue, alpha], 0 to 255. What is painted later replaces what was there.
  constructor(height, width) {
    Object.assign(this, { height, width });
    this.canvas = new OffscreenCanvas(height, width);
    this.context = this.canvas.getContext("2d");
    this.image = this.context.createImageData(height, width);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.columns = [width, 0]; // from … to, that are painted
    this.stale = [width, 0]; // …and that the canvas still shows from before
  }

  clear() {
    const [from, to] = this.columns;
    if (from < to) this.pixels.fill(0, from * this.height, to * this.height);
    this.stale = this.columns;
    this.columns = [this.width, 0];
  }

  flood(colour) {
    // Everything.
    this.pixels.fill(word(colour));
    this.columns = [0, this.width];
  }

  fill({ first, from, to }, colour) {
    // The inside of a mask, which is given as its spans.
    const value = word(colour);
    for (let x = 0, i = 0; x < this.width; x++) {
      for (; i < first[x + 1]; i++) this.pixels.fill(value, x * this.height + from[i], x * this.height + to[i]);
    }
    this.touch(first);
  }

  line({ first, from, to }, colour, thickness) {
    // The pixels inside from which the object ends within `thickness` along an axis. The frame's border is no end.
    const { height, width, pixels } = this;
    const value = word(colour);
    for (let x = 0, i = 0; x < width; x++) {
      for (; i < first[x + 1]; i++) {
        let inner = [from[i] ? from[i] + thickness : 0, to[i] < height ? to[i] - thickness : height];
        if (inner[0] >= inner[1]) inner = [];
        for (let d = 1; d <= thickness && inner.length; d++) {
          if (x >= d) inner = meet(inner, from, to, first[x - d], first[x - d + 1]);
          if (x + d < width) inner = meet(inner, from, to, first[x + d], first[x + d + 1]);
        }
        let y = from[i];
        for (let k = 0; k < inner.length; k += 2) {
          pixels.fill(value, x * height + y, x * height + inner[k]);
          y = inner[k + 1];
        }
        pixels.fill(value, x * height + y, x * height + to[i]);
      }
    }
    this.touch(first);
  }

  touch(first) {
    const { columns } = this;
    const last = first[this.width];
    if (last === 0) return;
    let [from, to] = [0, this.width];
    while (first[from + 1] === 0) from++;
    while (first[to - 1] === last) to--;
    this.columns = [Math.min(columns[0], from), Math.max(columns[1], to)];
  }

  drawOn(context) {
    const { canvas, columns, height, image, stale } = this;
    const [from, to] = [Math.min(columns[0], stale[0]), Math.max(columns[1], stale[1])];
    this.stale = [this.width, 0];
    if (from < to) this.context.putImageData(image, 0, 0, 0, from, height, to - from);
    const many = columns[1] - columns[0];
    if (many <= 0) return;
    context.save();
    context.imageSmoothingEnabled = false;
    context.setTransform(0, 1, 1, 0, 0, 0); // x and y change places
    context.drawImage(canvas, 0, columns[0], height, many, 0, columns[0], height, many);
    context.restore();
  }
}

function word([red, green, blue, alpha]) {
  return ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0; // as it lies in memory, the red first
}

function meet(inner, from, to, begin, end) {
  // What stretches [from, to, from, to, …] have in common with the spans of a column.
  if (inner.length === 2 && end - begin === 1) { // nearly always
    inner[0] = Math.max(inner[0], from[begin]);
    inner[1] = Math.min(inner[1], to[begin]);
    return inner[0] < inner[1] ? inner : [];
  }
  const common = [];
  for (let k = 0, i = begin; k < inner.length && i < end; ) {
    const [low, high] = [Math.max(inner[k], from[i]), Math.min(inner[k + 1], to[i])];
    if (low < high) common.push(low, high);
    if (inner[k + 1] < to[i]) k += 2;
    else i++;
  }
  return common;
}

// Pixels as arrays: scaled as Pillow scales them, labels in PASCAL VOC's colors, random numbers from a seed.

const BITS = 22;

// For each of `size` output pixels: where its input begins, and the weights of Pillow's bilinear filter, in fixed point.
function weights(from, to, inSize, size) {
  const scale = (to - from) / size, spread = Math.max(scale, 1), found = [];
  for (let x = 0; x < size; x++) {
    const center = from + (x + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - spread + 0.5));
    const last = Math.min(inSize, Math.trunc(center + spread + 0.5));
    const raw = [];
    let sum = 0;
    for (let i = first; i < last; i++) {
      const far = Math.abs((i - center + 0.5) / spread);
      raw.push(far < 1 ? 1 - far : 0);
      sum += raw[raw.length - 1];
    }
    found.push([first, Int32Array.from(raw, (w) => Math.trunc(0.5 + (w / sum) * (1 << BITS)))]);
  }
  return found;
}

const clip = (sum) => Math.min(255, Math.max(0, sum >> BITS));

// Cut a box out of RGB pixels and scale it, bit for bit as Pillow's resize((width, height), BILINEAR, box) does.
export function scaled({ data, width, height }, box, newWidth, newHeight) {
  const [left, top, right, bottom] = box;
  let pixels = data, w = width;
  if (newWidth !== width || left !== 0 || right !== width) {
    const made = new Uint8ClampedArray(newWidth * height * 3), across = weights(left, right, width, newWidth);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < newWidth; x++) {
        const [first, k] = across[x];
        for (let c = 0; c < 3; c++) {
          let sum = 1 << (BITS - 1);
          for (let i = 0; i < k.length; i++) sum += pixels[(y * w + first + i) * 3 + c] * k[i];
          made[(y * newWidth + x) * 3 + c] = clip(sum);
        }
      }
    }
    pixels = made;
    w = newWidth;
  }
  if (newHeight !== height || top !== 0 || bottom !== height) {
    const made = new Uint8ClampedArray(w * newHeight * 3), down = weights(top, bottom, height, newHeight);
    for (let y = 0; y < newHeight; y++) {
      const [first, k] = down[y];
      for (let x = 0; x < w * 3; x++) {
        let sum = 1 << (BITS - 1);
        for (let i = 0; i < k.length; i++) sum += pixels[(first + i) * w * 3 + x] * k[i];
        made[y * w * 3 + x] = clip(sum);
      }
    }
    pixels = made;
  }
  return { data: pixels, width: newWidth, height: newHeight };
}

// The middle of a picture in another shape, as Pillow's ImageOps.fit cuts and scales it.
export function fitted(picture, width, height) {
  const wanted = width / height, has = picture.width / picture.height;
  let w = picture.width, h = picture.height;
  if (has > wanted) w = wanted * h;
  else if (has < wanted) h = w / wanted;
  const left = (picture.width - w) * 0.5, top = (picture.height - h) * 0.5;
  return scaled(picture, [left, top, left + w, top + h], width, height);
}

// The whole picture, its longer side at most `side`.
export function shrunk(picture, side) {
  const scale = side / Math.max(picture.width, picture.height);
  if (scale >= 1) return picture;
  const width = Math.max(1, Math.round(picture.width * scale)), height = Math.max(1, Math.round(picture.height * scale));
  return scaled(picture, [0, 0, picture.width, picture.height], width, height);
}

// PASCAL VOC's colors: bits 0, 3, 6 of a label are red's from the top, and so on.
export function color(label) {
  const rgb = [0, 0, 0];
  for (let place = 0; place < 8; place++) {
    for (let c = 0; c < 3; c++) rgb[c] |= ((label >> (3 * place + c)) & 1) << (7 - place);
  }
  return rgb;
}

// Normally distributed numbers that depend on a seed alone.
export function normals(seed, count) {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 4294967296;
  };
  return Float32Array.from({ length: count }, () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()));
}

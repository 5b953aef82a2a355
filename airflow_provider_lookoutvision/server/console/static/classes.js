// The classes that a mask is painted in: the mask's own, the dataset's, and new ones, each with a colour.

import { say } from "./ui.js";

const COLORS = ["#2ca02c", "#d62728", "#1f77b4", "#ff7f0e", "#9467bd", "#17becf", "#e377c2", "#bcbd22", "#8c564b", "#0000ff"];
const element = (id) => document.getElementById(id);
const listed = (id) => [...element(id).content.querySelectorAll("i")].map(({ dataset: { name, color } }) => ({ name, color }));

export class Classes {
  constructor(editable) {
    this.editable = editable;
    const own = listed("own");
    this.ownColors = own.map(({ color }) => color);
    this.all = [...own, ...listed("known").filter(({ name }) => !own.some((each) => each.name === name))];
    this.chosen = 0;
    element("new_class")?.addEventListener("submit", (event) => {
      event.preventDefault();
      this.add(element("class_name").value.trim(), element("class_color").value.toUpperCase());
    });
  }

  get colors() {
    return this.all.map(({ color }) => color);
  }

  choose(index) {
    if (index < this.all.length) this.chosen = index;
    this.show();
  }

  show() {
    element("classes").replaceChildren(...this.all.map(({ name, color }, index) => {
      const row = document.createElement("label");
      row.className = "row";
      const radio = Object.assign(document.createElement("input"), { type: "radio", name: "class", value: String(index), checked: index === this.chosen, disabled: !this.editable });
      radio.addEventListener("change", () => (this.chosen = index));
      const swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.background = color;
      const text = document.createElement("span");
      text.textContent = index < 9 ? `${index + 1} ${name}` : name;
      row.append(radio, swatch, text);
      return row;
    }));
    const free = COLORS.find((color) => !this.colors.some((each) => each.toLowerCase() === color));
    if (free && element("class_color")) element("class_color").value = free;
  }

  add(name, color) {
    if (!name || name.toLowerCase() === "background") return say("Give the class a name, other than background.");
    if (this.all.some((each) => each.name === name)) return say(`There is a class ${name} already.`);
    if (this.colors.some((each) => each.toUpperCase() === color) || color === "#FFFFFF" || color === "#000000") {
      return say("Choose a colour that no class has, nor the background: neither white nor black.");
    }
    element("class_name").value = "";
    this.choose(this.all.push({ name, color }) - 1);
  }
}

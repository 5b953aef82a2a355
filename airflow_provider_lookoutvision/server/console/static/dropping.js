// Files and folders that are dropped on a part of a page, or chosen there. What misses that part opens nothing:
// a browser would leave the page for the file.

/** Call `take` with the files, each `{ path, file }`; the path has the folders below what was dropped. */
export function takeFiles(zone, inputs, take) {
  for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault());
  for (const kind of ["dragenter", "dragover"]) zone.addEventListener(kind, () => zone.classList.add("over"));
  zone.addEventListener("dragleave", (event) => {
    if (!zone.contains(event.relatedTarget)) zone.classList.remove("over");
  });
  zone.addEventListener("drop", async (event) => {
    zone.classList.remove("over");
    // Both lists are gone when this function first waits.
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const plain = [...event.dataTransfer.files].map((file) => ({ path: file.name, file }));
    take(entries.length ? (await Promise.all(entries.map(filesOf))).flat() : plain);
  });
  for (const input of inputs) {
    const takeChosen = () => {
      const files = [...input.files].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
      input.value = "";
      if (files.length) take(files);
    };
    input.addEventListener("change", takeChosen);
    takeChosen(); // what was chosen before this script had come
  }
}

/** The files of a dropped entry; what can't be read is there with its path, and null for a file. */
async function filesOf(entry) {
  const path = entry.fullPath.replace(/^\//, "");
  try {
    if (entry.isFile) return [{ path, file: await new Promise((resolve, reject) => entry.file(resolve, reject)) }];
    const reader = entry.createReader();
    const found = [];
    for (;;) {
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!some.length) return found;
      for (const each of some) found.push(...(await filesOf(each)));
    }
  } catch {
    return [{ path, file: null }];
  }
}

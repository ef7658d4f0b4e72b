// Browsers start no workers for a page that is opened as a file, and the search runs in one.
// There a hidden frame of the page runs the worker's script.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.waiting = []
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      const inside = frame.contentWindow
      inside.importScripts = (...urls) => Promise.all(urls.map((each) => this.load(inside, each)))
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }))
      this.loaded = this.load(inside, url)
      this.inside = inside
    }

    load(inside, url) {
      return new Promise((resolve, reject) => {
        const script = inside.document.createElement("script")
        script.src = new URL(url, document.baseURI)
        script.onload = resolve
        script.onerror = reject
        inside.document.body.append(script)
      })
    }

    postMessage(data) {
      this.loaded.then(() =>
        this.inside.dispatchEvent(new this.inside.MessageEvent("message", { data })))
    }

    terminate() {}

    set onmessage(heard) { this.addEventListener("message", heard) }
  }
}

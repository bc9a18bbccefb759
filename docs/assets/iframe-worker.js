// Browsers start no worker for a page that is opened from the disk. The site's search is one: it runs in a hidden frame.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.onmessage = null;
      this.messages = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.frame.title = "Search";
      document.body.append(this.frame);
      const scope = this.frame.contentWindow;
      // A worker's messages never arrive while the sender still runs.
      scope.postMessage = (data) => setTimeout(() => this.receive(new MessageEvent("message", { data })));
      const script = scope.document.createElement("script");
      script.src = url;
      script.onload = () => {
        const messages = this.messages;
        this.messages = null;
        messages.forEach((data) => this.postMessage(data));
      };
      scope.document.body.append(script);
    }

    receive(event) {
      this.onmessage?.(event);
      this.dispatchEvent(event);
    }

    postMessage(data) {
      if (this.messages) {
        this.messages.push(data);
      } else {
        const scope = this.frame.contentWindow;
        setTimeout(() => scope.dispatchEvent(new MessageEvent("message", { data })));
      }
    }

    terminate() {
      this.frame.remove();
    }
  };
}

"use strict";
// What unfold's templates ask of Alpine, registered by name: its build for a strict Content-Security-Policy runs no text
// as code and sees no global names.

document.addEventListener("alpine:init", () => {
  Alpine.data("theme", () => window.theme("auto"));
  Alpine.data("searchForm", () => window.searchForm());
  Alpine.data("page", () => {
    const kept = localStorage.getItem("sidebarDesktopOpen");
    const tab = document.body.dataset.tab;
    return {
      activeTab: tab === undefined ? "" : window.getCurrentTab() || tab,
      sidebarMobileOpen: false,
      filterOpen: false,
      sidebarDesktopOpen: kept === null || kept === "1",
      window: { location: { pathname: location.pathname, search: location.search } },
      toggleSidebar() {
        this.sidebarDesktopOpen = !this.sidebarDesktopOpen;
        localStorage.setItem("sidebarDesktopOpen", this.sidebarDesktopOpen ? "1" : "0");
      },
    };
  });
});

// Before anything is drawn, so that a dark page never flashes white.
const chosen = (localStorage.getItem("adminTheme") || "auto").replaceAll('"', "");
const dark = chosen === "dark" || (chosen === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
document.documentElement.classList.toggle("dark", dark);

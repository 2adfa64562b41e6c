  const get = (id) => document.getElementById(id);
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const options = { responsive: true, displaylogo: false, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] };

  function paint(figure) {
    figure.layout.font.color = color("--ink");
    figure.layout.hoverlabel.bgcolor = color("--paper");
    figure.layout.hoverlabel.bordercolor = color("--soft");
    figure.layout.hoverlabel.font = { ...figure.layout.font };
    for (const axis of [figure.layout.xaxis, figure.layout.yaxis]) {
      axis.gridcolor = axis.tickcolor = axis.linecolor = color("--line");
    }
  }

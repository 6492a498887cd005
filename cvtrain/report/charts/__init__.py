"""Charts as inline SVG, made of figures alone: lines, points, bars and matrices, in the colours of the page.

    line_chart([Series("train", epochs, losses)], title="Loss", x=Axis("epoch", "count"), y=Axis("loss"))

returns markup for `parts.chart(...)`: legend, drawing, and the values as a table where they are few. The page's style
gives colours, its script lets people switch series and read values; without the script the chart is whole.
Values that are None or not finite leave gaps. Accuracies are 0..1 with `Axis(kind="percent")`.
"""

from cvtrain.report.charts.bars import bar_chart
from cvtrain.report.charts.matrix import matrix_chart
from cvtrain.report.charts.parts import Axis, Band, Mark, Series
from cvtrain.report.charts.plane import line_chart, point_chart

__all__ = ["Axis", "Band", "Mark", "Series", "bar_chart", "line_chart", "matrix_chart", "point_chart"]
